"""Lanes: the connections to PostgreSQL that one kind of work shares.

Each kind has connections of its own, whose sessions start with the limits of that kind: no call
pays a round trip to set them. So neither stalled exports nor writes waiting for a lock take a
connection from a read, and within a lane no consumer and no dataset takes more than its share.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import asyncpg
import structlog

from penstockd.errors import DatabaseUnavailable
from penstockd.shares import Payer, Shares, ShareTerms
from penstockd.store.servers import NewestServer
from penstockd.store.session import (
    CONNECT_TIMEOUT,
    IDLE_UNCHECKED,
    PooledConnection,
    cut_session,
    gives_sign,
    is_usable,
)
from penstockd.store.sockets import Prepare, open_session

#: How much longer the hub waits for a statement than the database's own limit, in seconds: after
#: that the database counts as silent.
SILENCE = 5.0

_log = structlog.get_logger(__name__)


class WorkKind(enum.Enum):
    """The purpose of a connection."""

    READ = "short reads"
    WRITE = "writes"
    BULK = "exports and imports"
    OWN = "the hub's own work"


@dataclass(frozen=True, slots=True)
class Limits:
    """Time limits of a connection, in seconds; 0 is no limit, for which ``unlimited`` gives the
    reason.

    ``lock``: waiting for a lock. ``statement``: one statement. ``commit``: a COMMIT, after which
    its outcome is unknown. ``idle``: a transaction in which nothing happens.
    """

    lock: float
    statement: float
    commit: float = 10.0
    idle: float = 60.0
    unlimited: str = ""

    def __post_init__(self) -> None:
        """Raises ValueError if something is unlimited without a reason."""
        if not self.unlimited and 0 in (self.lock, self.statement, self.commit, self.idle):
            raise ValueError("say why there is no limit")

    @property
    def settings(self) -> Mapping[str, str]:
        """The limits that the server applies, as settings of a session, in milliseconds."""
        return {
            "lock_timeout": str(int(self.lock * 1000)),
            "statement_timeout": str(int(self.statement * 1000)),
            "idle_in_transaction_session_timeout": str(int(self.idle * 1000)),
        }


#: The limits of connections without others.
ORDINARY = Limits(lock=10.0, statement=60.0)
#: The limits of sessions outside the lanes.
OWN = Limits(
    lock=10.0,
    statement=0.0,
    unlimited="each organ gives up by its own time limit, cutting the session; the holder of a "
    "snapshot may have to sort a large table",
)


@dataclass(frozen=True, slots=True)
class LaneTerms:
    """``size`` connections at most, of which ``ready`` are opened at the start.

    Connections that are ``read_only`` refuse writes: calls write through ``Database.transaction``.
    """

    size: int
    limits: Limits = ORDINARY
    shared: ShareTerms = field(default_factory=ShareTerms)
    ready: int = 0
    read_only: bool = False


class PoolLane:
    """The connections of one kind of work. Opened once; belongs to one event loop."""

    def __init__(
        self, dsn: str, name: str, terms: LaneTerms, prepare: Prepare, servers: NewestServer
    ) -> None:
        self.name, self.limits = name, terms.limits
        self.shares = Shares(terms.size, terms.shared, what=f"connections for {name}")
        self._dsn, self._terms, self._prepare = dsn, terms, prepare
        self._servers = servers
        self._lent: set[Any] = set()
        # Acquired from the pool and idle: releasing and acquiring one again costs more than a short
        # query. They are released when they fail.
        self._warm: list[Any] = []
        self._doubted = 0.0
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None

    async def open(self) -> None:
        """Connect. Raises the driver's errors."""
        limits = self.limits
        self._pool = await asyncpg.create_pool(
            self._dsn,
            min_size=self._terms.ready,
            max_size=self._terms.size,
            timeout=CONNECT_TIMEOUT,
            command_timeout=limits.statement + SILENCE if limits.statement else None,
            max_inactive_connection_lifetime=300,
            # Not the pool's own way to prepare: a host whose server is refused is not usable.
            connect=partial(open_session, prepare=self._prepare),
            connection_class=PooledConnection,
            server_settings={
                **({"default_transaction_read_only": "on"} if self._terms.read_only else {}),
                **limits.settings,
            },
        )

    async def close(self) -> None:
        """Close all connections, waiting for those in use."""
        if self._pool is not None:
            while self._warm:
                await self._pool.release(self._warm.pop())
            await self._pool.close()

    def terminate(self) -> None:
        """Cut all connections."""
        if self._pool is not None:
            self._pool.terminate()

    def abandon(self) -> None:
        """Cut all connections in use, and fail all calls that wait for one."""
        for connection in list(self._lent):
            cut_session(connection)
        self.shares.fail(DatabaseUnavailable("the database does not answer"))

    async def take(self, payer: Payer, weight: int) -> tuple[Any, int]:
        """Take a connection, with the number of places that it takes of the payer's share, at most
        ``weight``. Raises ShareExhausted and the driver's errors."""
        shares = self.shares
        taken = shares.try_take(payer, weight) or await shares.take(payer, weight)
        try:
            while True:
                connection = await self._connected()
                self._lent.add(connection)
                if await self._answers(connection):
                    return connection, taken
                self._lent.discard(connection)
        except BaseException:
            shares.give_back(payer, taken)
            raise

    async def _connected(self) -> Any:
        assert self._pool is not None, "the database is not open"
        while self._warm:
            connection = self._warm.pop()
            if is_usable(connection):
                return connection
            await self._pool.release(connection)
        while True:
            connection = cast(Any, await self._pool.acquire(timeout=CONNECT_TIMEOUT))
            if self._servers.leads_to(connection.server):
                return connection
            connection.terminate()  # it was idle in the pool while its server was replaced
            await self._pool.release(connection)

    async def _answers(self, connection: Any) -> bool:
        """Whether a connection responds; only idle or doubted ones are asked.

        A network that lost its state drops packets silently: the user of such a connection waits
        until the system closes it. If one does not respond, all idle ones are dropped: asking each
        in turn would cost the caller the same wait again.
        """
        asked = time.monotonic()
        if connection.answered >= max(self._doubted, asked - IDLE_UNCHECKED):
            return True
        if connection.answered:  # it is not new
            try:
                answers = await gives_sign(connection)
            except BaseException:
                self._lent.discard(connection)
                cut_session(connection)
                raise
            if not answers:
                await self._drop_idle(asked)
                return False
        connection.note_answer()
        return True

    def cut_earlier(self) -> None:
        """Cut the connections to servers that were replaced. Idle ones in the pool are cut when it
        lends them."""
        for connection in [*self._lent, *self._warm]:
            if is_usable(connection) and not self._servers.leads_to(connection.server):
                cut_session(connection)

    def doubt(self) -> None:
        """Doubt all connections that last answered before now: a similar one was dead."""
        self._doubted = time.monotonic()

    async def _drop_idle(self, since: float) -> None:
        """Drop the idle connections that have not answered since then."""
        assert self._pool is not None
        self._doubted = max(self._doubted, since)
        for connection in [c for c in self._warm if not is_usable(c) or c.answered < since]:
            self._warm.remove(connection)
            connection.terminate()
        await self._pool.expire_connections()

    async def give_back(self, connection: Any, payer: Payer, taken: int, *, clean: bool) -> None:
        """Take a connection and its places back. One that is not ``clean`` goes to the pool,
        which checks it."""
        assert self._pool is not None
        self._lent.discard(connection)
        try:
            if clean and is_usable(connection):
                connection.note_answer()
                self._warm.append(connection)
            else:
                await self._pool.release(connection)
        finally:
            self.shares.give_back(payer, taken)
