"""Numbers the change log contiguously, in an order in which no reader sees a gap.

``hub.stamp()`` does the work under an advisory lock. A process calls it right after each commit, so
that changes are numbered without delay; the keeper's sweep numbers what such calls left behind (a
process that died, a call that found the lock taken).
"""

from __future__ import annotations

import asyncio

import structlog

from penstockd.errors import Refused
from penstockd.store.database import Database, WorkKind
from penstockd.store.fences import Transactions

#: How often the keeper sweeps, in seconds.
SWEEP_INTERVAL = 0.25

_log = structlog.get_logger(__name__)


class Sequencer:
    """Stamps transactions, at once when nudged."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._task: asyncio.Task[None] | None = None
        self._again = False

    async def stamp(self) -> int:
        """Number the visible changes that have no number; returns the number of log rows."""
        async with self._database.connection(WorkKind.OWN) as connection:
            return int(await connection.fetchval("SELECT hub.stamp()"))

    def nudge(self) -> None:
        """Stamp soon: something was committed. All nudges during a stamp cause one more."""
        if self._task is not None and not self._task.done():
            self._again = True
            return
        self._task = asyncio.create_task(self._stamp_until_quiet())

    async def _stamp_until_quiet(self) -> None:
        self._again = True
        while self._again:
            self._again = False
            try:
                await self.stamp()
            except Refused as exc:
                # The commit stands; the keeper numbers it when the database is back.
                _log.warning("stamp_failed", error=str(exc))

    async def close(self) -> None:
        """Wait for a running stamp."""
        if self._task is not None:
            await self._task


async def sweep_log(database: Transactions) -> None:
    """Stamp every SWEEP_INTERVAL until cancelled. Raises DatabaseUnavailable."""
    while True:
        async with database.transaction() as connection:
            await connection.execute("SELECT hub.stamp()")
        await asyncio.sleep(SWEEP_INTERVAL)
