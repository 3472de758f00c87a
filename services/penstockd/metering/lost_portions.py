"""Takes back what processes leased of allowances and died with; runs in the keeper."""

from __future__ import annotations

import asyncio
import datetime as dt

import structlog

from penstockd.metering.ledger import RENEWAL
from penstockd.store.fences import Transactions

#: Allowances are kept for so long after their period, and looked for every so many seconds.
KEPT, PRUNING = dt.timedelta(days=62), 3600.0

_PRUNE = """
DELETE FROM hub.allowance AS a WHERE end_time < now() - $1::interval
AND NOT EXISTS (SELECT FROM hub.portion AS p WHERE p.allowance_id = a.allowance_id)
"""

#: A bucket that is full is as one that was never used.
_PRUNE_RATES = "DELETE FROM hub.spike WHERE full_time < now() - interval '1 hour'"

_log = structlog.get_logger(__name__)


class LostPortions:
    """Ends the portions of processes whose term is over, of any node."""

    def __init__(self, database: Transactions) -> None:
        self._database = database

    async def run(self) -> None:
        """Look every RENEWAL until cancelled. Raises DatabaseUnavailable."""
        loop = asyncio.get_running_loop()
        pruned = loop.time() - PRUNING
        while True:
            await self.take_back()
            if loop.time() - pruned >= PRUNING:
                pruned = loop.time()
                await self.prune()
            await asyncio.sleep(RENEWAL)

    async def prune(self) -> None:
        """Delete what nobody asks for any more."""
        async with self._database.transaction() as connection:
            await connection.execute(_PRUNE, KEPT)
            await connection.execute(_PRUNE_RATES)

    async def take_back(self) -> int:
        """Take back what is due; returns from how many processes."""
        ended = 0
        while await self._end_next():
            ended += 1
        if ended:
            _log.warning("allowances_taken_back", spenders=ended)
        return ended

    async def _end_next(self) -> bool:
        """Each in a transaction of its own: see the migration."""
        async with self._database.transaction() as connection:
            ended: bool = await connection.fetchval("SELECT hub.end_spender(NULL)")
        return ended
