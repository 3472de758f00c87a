"""Retention of the change log.

The tables of the datasets are its compacted form: a snapshot of them is always possible, whatever
has been pruned.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

import structlog

from penstockd.errors import Conflict
from penstockd.store.fences import Transactions

#: How often the log is pruned, in seconds.
INTERVAL = 300.0

_log = structlog.get_logger(__name__)


class LogRetention:
    """Prunes changes that were numbered more than ``hours`` ago."""

    def __init__(self, database: Transactions, hours: int) -> None:
        self._database, self._age = database, timedelta(hours=hours)

    async def run(self) -> None:
        """Prune every INTERVAL until cancelled. Raises DatabaseUnavailable."""
        while True:
            try:
                await self.prune()
            except Conflict:
                # Readers hold the log's tables: try again later.
                _log.info("pruning_postponed")
            await asyncio.sleep(INTERVAL)

    async def prune(self) -> int:
        """Prune what is too old; returns how many numbers."""
        async with self._database.transaction() as connection:
            last = await connection.fetchval(
                "SELECT max(last_number) FROM hub.log_transaction"
                " WHERE stamp_time < now() - $1::interval",
                self._age,
            )
            if last is None:
                return 0
            pruned = int(await connection.fetchval("SELECT hub.prune_log($1)", last))
        if pruned:
            _log.info("log_pruned", up_to=last, changes=pruned)
        return pruned
