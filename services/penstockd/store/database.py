"""Connections to PostgreSQL: a lane for each kind of work, and single ones outside the lanes."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit, urlunsplit
from weakref import WeakSet

from penstockd.errors import DatabaseUnavailable, OutcomeUnknown
from penstockd.shares import ShareTerms, payer_var
from penstockd.store import commit
from penstockd.store.ages import read_until
from penstockd.store.epochs import Memory, declares_return, notice_epoch
from penstockd.store.hanging import STILL_ACTIVE, HangingSessions
from penstockd.store.pool import ORDINARY, OWN, LaneTerms, Limits, PoolLane, WorkKind
from penstockd.store.servers import LOOK, ServerSession, identify_server
from penstockd.store.session import (
    CONNECT_TIMEOUT,
    IDLE_UNCHECKED,
    Connection,
    Isolation,
    OwnConnection,
    Rows,
    as_ours,
    cut_session,
    gives_sign,
    prepare_session,
    session_of,
    translate_errors,
)
from penstockd.store.sockets import READ_SLOWLY, identify_hosts, open_session, read_hosts

__all__ = [
    "CONNECT_TIMEOUT",
    "IDLE_UNCHECKED",
    "ORDINARY",
    "Connection",
    "Database",
    "Division",
    "Isolation",
    "Limits",
    "Rows",
    "WorkKind",
    "gives_sign",
    "name_place",
    "open_database",
    "plain_dsn",
    "translate_errors",
]


def plain_dsn(url: str) -> str:
    """Convert a SQLAlchemy or libpq URL to one that asyncpg and libpq read."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(scheme=parts.scheme.split("+")[0]))


def name_place(url: str) -> str:
    """Where a database is, without user and password: "host:5432/name"."""
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    host = query.get("host") or parts.netloc.rpartition("@")[2] or "localhost"
    port = f":{query['port']}" if "port" in query else ""
    return f"{host}{port}{parts.path}"


#: The limits of a command's connections.
_COMMANDS = Limits(
    lock=30.0, statement=0.0, unlimited="an operator watches a command, and can interrupt it"
)
#: Whether the server is a standby, or read-only.
_TAKES_NO_WRITES = """
SELECT pg_is_in_recovery() OR current_setting('default_transaction_read_only')::boolean
"""


@dataclass(frozen=True, slots=True)
class Division:
    """How the connections of a worker are divided between the kinds of work.

    ``connections`` is their number, at least 16. The others are in seconds: how long a call waits
    for its share, how long a statement waits for a lock, how long a short read or write may run,
    how long a COMMIT may take, and how long one state of the data may be read.
    """

    connections: int = 32
    wait: float = 20.0
    lock: float = 10.0
    statement: float = 30.0
    commit: float = 10.0
    snapshot: float = 3600.0

    def lanes(self) -> Mapping[WorkKind, LaneTerms]:
        """The lane of each kind.

        A consumer takes at most three quarters of the connections for short reads, which are soon
        returned, and half of the others; one dataset at most two thirds. A COPY of an export takes
        as long as its client, which has a limit of its own.
        """
        count, short = self.connections, Limits(self.lock, self.statement, self.commit)
        sizes = {
            WorkKind.READ: count * 7 // 16,
            WorkKind.WRITE: count * 3 // 16,
            WorkKind.BULK: count // 4,
        }
        terms = {
            WorkKind.READ: LaneTerms(
                sizes[WorkKind.READ], short, ShareTerms(3, 2, self.wait), ready=1, read_only=True
            ),
            WorkKind.WRITE: LaneTerms(sizes[WorkKind.WRITE], short, ShareTerms(1, 2, self.wait)),
            WorkKind.BULK: LaneTerms(
                sizes[WorkKind.BULK],
                Limits(
                    self.lock,
                    0.0,
                    self.commit,
                    unlimited="a COPY takes as long as its client, which has limits of its own",
                ),
                ShareTerms(1, 2, self.wait),
            ),
        }
        # The hub's own work is short, and commits with each statement.
        brief = Limits(self.lock, self.commit, self.commit)
        own = LaneTerms(count - sum(sizes.values()), brief, ShareTerms(seconds=self.wait))
        return {**terms, WorkKind.OWN: own}


class _LentConnection:
    """A connection for the length of a block. A class, since a generator would slow every call."""

    __slots__ = ("_connection", "_lane", "_payer", "_weight")

    def __init__(self, lane: PoolLane, weight: int) -> None:
        self._lane, self._payer, self._weight = lane, payer_var.get(), weight

    async def __aenter__(self) -> Connection:
        try:
            self._connection, self._weight = await self._lane.take(self._payer, self._weight)
        except Exception as exc:
            if (ours := as_ours(exc)) is None:
                raise
            raise ours from exc
        return self._connection  # type: ignore[no-any-return]  # a proxy with its methods

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        with translate_errors():
            await self._lane.give_back(
                self._connection, self._payer, self._weight, clean=error is None
            )
        if error is not None and (ours := as_ours(error)) is not None:
            raise ours from error


class Database:
    """The connections of one process. Opened once; safe to share between tasks."""

    def __init__(
        self,
        url: str,
        *,
        size: int = 20,
        limits: Limits = ORDINARY,
        division: Division | None = None,
        memory: Memory | None = None,
    ) -> None:
        """Divide the connections as ``division`` says, or share ``size`` with the same
        ``limits`` between all kinds. The databases of one process share a ``memory``."""
        self.dsn = plain_dsn(url)
        self.memory = memory if memory is not None else Memory()
        self._snapshot_seconds = math.inf if division is None else division.snapshot
        if division is None:
            lane = self._lane("everything", LaneTerms(size, limits, ready=1))
            self._lanes = dict.fromkeys(WorkKind, lane)
        else:
            lanes = division.lanes().items()
            self._lanes = {kind: self._lane(kind.value, terms) for kind, terms in lanes}
        self._pulse: Connection | None = None
        self._single: WeakSet[OwnConnection] = WeakSet()
        self.memory.servers.when_replaced(self._cut_earlier)
        #: Server sessions that hang in a COMMIT, and the places that they keep.
        self.hanging = HangingSessions(self._read_active)

    def _lane(self, name: str, terms: LaneTerms) -> PoolLane:
        return PoolLane(self.dsn, name, terms, self._prepare, self.memory.servers)

    @property
    def _each_lane(self) -> list[PoolLane]:
        return list(dict.fromkeys(self._lanes.values()))

    @property
    def usage(self) -> Mapping[str, tuple[int, int]]:
        """How many connections of each lane are taken, of how many."""
        shares = {lane.name: lane.shares for lane in self._each_lane}
        return {name: (one.size - one.free, one.size) for name, one in shares.items()}

    async def open(self) -> None:
        """Connect. Raises DatabaseUnavailable if the database cannot be reached."""
        with translate_errors():
            for lane in self._each_lane:
                await lane.open()

    async def close(self) -> None:
        """Close all connections, waiting at most two seconds for those in use."""
        self.memory.servers.forget(self._cut_earlier)
        self._drop_pulse()
        self.hanging.stop()
        try:
            async with asyncio.timeout(2):
                for lane in self._each_lane:
                    await lane.close()
        except TimeoutError:
            for lane in self._each_lane:
                lane.terminate()

    async def ping(self) -> None:
        """Raise DatabaseUnavailable unless the database answers within CONNECT_TIMEOUT and takes
        writes: a standby does not, and the hub answers nothing without a write.

        It has a connection of its own: an exhausted pool is not an outage.
        """
        try:
            with translate_errors():
                async with asyncio.timeout(CONNECT_TIMEOUT):
                    if self._pulse is None or self._pulse.is_closed():
                        self._pulse = await self.connect()
                    if await self._pulse.fetchval(_TAKES_NO_WRITES):
                        raise DatabaseUnavailable("the database takes no writes: it is a standby")
        except BaseException:
            for lane in self._each_lane:
                lane.doubt()
            self._drop_pulse()
            raise

    def abandon(self) -> None:
        """Cut all connections in use: their calls fail as DatabaseUnavailable, now.

        For a server that has stopped answering: nothing else would end the calls waiting for it.
        """
        for lane in self._each_lane:
            lane.abandon()

    def _drop_pulse(self) -> None:
        """Close abruptly: a hanging server would not answer a goodbye."""
        if self._pulse is not None:
            self._pulse.terminate()
            self._pulse = None

    def connection(
        self, kind: WorkKind = WorkKind.READ, *, weight: int = 1
    ) -> AbstractAsyncContextManager[Connection]:
        """A connection from the current payer's share, whose errors are translated.

        ``weight`` is the number of places of the lane that the call takes, fewer if others need
        them: heavier work counts for more. Raises ShareExhausted, DatabaseUnavailable, DataLocked
        and QueryTooLong.
        """
        return _LentConnection(self._lanes[kind], weight)

    @asynccontextmanager
    async def transaction(
        self, *, isolation: Isolation | None = None, dry: bool = False, bulk: bool = False
    ) -> AsyncIterator[Connection]:
        """A transaction that commits if the block ends without an error; a ``dry`` one never does.
        Use ``bulk`` for one that takes as long as its client, so that no short write waits for it.

        Raises OutcomeUnknown if it is not known whether it was committed, and as ``connection``.
        """
        kind = WorkKind.BULK if bulk else WorkKind.WRITE
        lane = self._lanes[kind]
        if 2 * self.hanging.count(lane.shares) >= lane.shares.size:
            raise DatabaseUnavailable("the database does not confirm what was written before")
        async with self.connection(kind) as connection:
            session = session_of(connection)
            try:
                seconds = lane.limits.commit
                async with commit.open_transaction(
                    connection, seconds, isolation=isolation, dry=dry
                ):
                    yield connection
            except OutcomeUnknown:
                self.hanging.keep(session, lane.shares)
                raise

    @property
    def spare_snapshots(self) -> int:
        """How many more snapshots the current payer could take without waiting."""
        return self._lanes[WorkKind.BULK].shares.spare(payer_var.get())

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Connection]:
        """A read-only transaction that sees a single state throughout.

        If the block fails, the connection is thrown away: it is unusable after an interrupted COPY.
        Raises StateGone if the block takes too long, and as ``connection``.
        """
        async with self.connection(WorkKind.BULK) as connection:
            try:
                await connection.execute(
                    f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {READ_SLOWLY}"
                )
                seconds = self._snapshot_seconds
                async with read_until(time.monotonic() + seconds, seconds):
                    yield connection
                await connection.execute("COMMIT")
            except BaseException:
                cut_session(connection)
                raise

    async def connect(self) -> Connection:
        """A new connection outside the lanes: for listeners and session locks."""
        with translate_errors():
            connection: OwnConnection = await open_session(
                self.dsn,
                timeout=CONNECT_TIMEOUT,
                connection_class=OwnConnection,
                server_settings=OWN.settings,
                prepare=self._prepare,
            )
            self._single.add(connection)
            return connection

    async def follow_server(self) -> None:
        """Check again and again where new connections lead, until cancelled: open ones would stay
        with a server that was replaced. Raises DatabaseUnavailable."""
        while True:
            await self.look_at_server()
            await asyncio.sleep(LOOK)

    async def look_at_server(self) -> None:
        """Open a connection, and cut those to earlier servers. If the URL names several hosts, all
        are asked: one that works may lead to an earlier server. Raises DatabaseUnavailable."""
        with translate_errors():
            async with asyncio.timeout(LOOK):
                if len(read_hosts(self.dsn)) > 1:
                    self.memory.servers.hear(await identify_hosts(self.dsn))
                connection = await self.connect()
        connection.terminate()

    async def _prepare(self, connection: Any) -> None:
        """Make a new session ready.

        Raises DatabaseUnavailable if the server is a standby, or one that was replaced. Nothing is
        written there before that is known.
        """
        await prepare_session(connection)
        servers = self.memory.servers
        server, session = await identify_server(connection)
        connection.note_server(server, session)
        declared = servers.was_replaced(server) and await declares_return(connection, self.memory)
        servers.note(server, declared=declared)
        await notice_epoch(connection, self.memory)
        if not servers.leads_to(server):
            raise DatabaseUnavailable("the database server was replaced meanwhile")

    def _cut_earlier(self) -> None:
        """Cut the connections to all servers but the newest."""
        for lane in self._each_lane:
            lane.cut_earlier()
        for connection in list(self._single):
            if not self.memory.servers.leads_to(connection.server):
                connection.terminate()

    async def _read_active(self, sessions: Sequence[ServerSession]) -> Collection[ServerSession]:
        """Those of some sessions that are still active. Raises as ``connection``."""
        asked = ([s.pid for s in sessions], [s.start for s in sessions])
        async with self.connection(WorkKind.OWN) as connection:
            return [ServerSession(*row) for row in await connection.fetch(STILL_ACTIVE, *asked)]


@asynccontextmanager
async def open_database(url: str, *, size: int) -> AsyncIterator[Database]:
    """A database with ``size`` connections, closed after the block. Raises DatabaseUnavailable."""
    database = Database(url, size=size, limits=_COMMANDS)
    await database.open()
    try:
        yield database
    finally:
        await database.close()
