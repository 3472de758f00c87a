"""A lease that a process holds, and the fence that it puts around the database.

A holder stops before its lease ends, by its own monotonic clock. A holder that cannot stop,
because it is frozen or cut off, writes nothing afterwards: each of its transactions first locks the
row of its term, and fails if there is none.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from datetime import datetime
from typing import Protocol

import structlog

from penstockd.store.database import Connection, Isolation
from penstockd.store.session import cut_session
from penstockd.store.singleton_rows import LENGTH, Holder

#: Seconds before the end of its lease at which a holder stops by itself.
MARGIN = 1.0

_FENCE = """
SELECT true FROM hub.singleton
WHERE name = $1 AND term = $2 AND acquire_time = $3 AND node_id = $4 AND instance = $5
  AND expire_time > clock_timestamp()
FOR KEY SHARE
"""

_log = structlog.get_logger(__name__)


class LeaseOver(Exception):
    """The lease has ended, or another process holds it: the work must stop."""


class Transactions(Protocol):
    """The place where an organ writes: a database, or a database fenced by a lease."""

    def transaction(
        self, *, isolation: Isolation | None = None
    ) -> AbstractAsyncContextManager[Connection]:
        """A transaction that commits if the block ends without an error."""
        ...


def elapsed_seconds() -> float:
    """Seconds of a monotonic clock that also runs while the machine sleeps, where there is one."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


class SingletonLease:
    """A lease that a process holds. ``over`` is set when it no longer holds it; ``wanted`` is set
    when the holder should end its work and release it, since it is in another node's share.

    ``acquired`` is when it was taken, to the microsecond: a database that went back in time issues
    a term again, but not with the same ``acquired``.
    """

    def __init__(
        self,
        name: str,
        term: int,
        acquired: datetime,
        asked: float,
        clock: Callable[[], float],
        holder: Holder,
    ) -> None:
        self.name, self.term, self.acquired, self.holder = name, term, acquired, holder
        self.over, self.wanted = asyncio.Event(), asyncio.Event()
        self._clock = clock
        self._timer: asyncio.TimerHandle | None = None
        self.renewed(asked)

    @property
    def key(self) -> tuple[str, int, datetime, str, str]:
        """The lease's identity in the database: name, term, time of acquisition, holder."""
        return self.name, self.term, self.acquired, *self.holder

    @property
    def runs(self) -> bool:
        """Whether the lease is still held; ends it if its deadline has passed."""
        if not self.over.is_set() and self._clock() >= self._deadline:
            self.end("not_renewed")
        return not self.over.is_set()

    def renewed(self, asked: float) -> None:
        """Note a renewal by a statement that was sent at ``asked``."""
        self._deadline = asked + LENGTH - MARGIN
        if self._timer is not None:
            self._timer.cancel()
        left = max(0.0, self._deadline - self._clock())
        self._timer = asyncio.get_running_loop().call_later(left, self.end, "not_renewed")

    def end(self, reason: str) -> None:
        """End the lease."""
        if self._timer is not None:
            self._timer.cancel()
        if not self.over.is_set():
            self.over.set()
            level = _log.info if reason == "released" else _log.warning
            level("lease_over", singleton=self.name, term=self.term, reason=reason)

    async def check(self, connection: Connection) -> None:
        """Bind the connection's transaction to this term: it commits before another term begins.

        Raises LeaseOver.
        """
        if not self.runs:
            raise LeaseOver(f"the lease of {self.name} is over")
        if not await connection.fetchval(_FENCE, *self.key):
            self.end("taken")
            raise LeaseOver(f"term {self.term} of {self.name} is over")


class FencedDatabase:
    """The database for the holder of a lease: every transaction checks the term."""

    def __init__(self, database: Transactions, lease: SingletonLease) -> None:
        self.lease = lease
        self._database = database
        self._lent: set[Connection] = set()

    def by_way_of(self, database: Transactions) -> FencedDatabase:
        """The same fence around another database; ``abandon`` also cuts its transactions."""
        other = FencedDatabase(database, self.lease)
        other._lent = self._lent
        return other

    @contextlib.asynccontextmanager
    async def transaction(self, *, isolation: Isolation | None = None) -> AsyncIterator[Connection]:
        """A transaction of the lease's term. Raises LeaseOver and DatabaseUnavailable."""
        if not self.lease.runs:
            raise LeaseOver(f"the lease of {self.lease.name} is over")
        lent: Connection | None = None
        try:
            async with self._database.transaction(isolation=isolation) as connection:
                lent = connection
                self._lent.add(lent)
                await self.lease.check(connection)
                yield connection
        finally:
            if lent is not None:
                self._lent.discard(lent)

    def abandon(self) -> None:
        """Cut the open transactions: their answers may never come."""
        for connection in list(self._lent):
            cut_session(connection)
