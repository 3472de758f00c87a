"""Connections to PostgreSQL: a lane for each kind of work, and single ones outside the lanes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit, urlunsplit

import structlog

from penstockd.errors import DatabaseUnavailable, OutcomeUnknown, Refused
from penstockd.shares import Payer, ShareTerms, payer_var
from penstockd.store import commit
from penstockd.store.epochs import Memory, notice_epoch
from penstockd.store.pool import LOOK, LaneTerms, Limits, PoolLane, WorkKind
from penstockd.store.session import (
    CONNECT_TIMEOUT,
    IDLE_UNCHECKED,
    Connection,
    Isolation,
    Rows,
    as_ours,
    cut_session,
    gives_sign,
    prepare_session,
    translate_errors,
)
from penstockd.store.sockets import READ_SLOWLY, open_session

__all__ = [
    "CONNECT_TIMEOUT",
    "IDLE_UNCHECKED",
    "Connection",
    "Database",
    "Division",
    "Isolation",
    "Rows",
    "WorkKind",
    "gives_sign",
    "name_place",
    "open_database",
    "plain_dsn",
    "translate_errors",
]

_IN_COMMIT = """
SELECT pid FROM pg_stat_activity
WHERE pid = ANY ($1::int[]) AND state = 'active' AND query ILIKE 'COMMIT%'
"""

_log = structlog.get_logger(__name__)


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


#: Whether the server is a standby, or read-only.
_TAKES_NO_WRITES = """
SELECT pg_is_in_recovery() OR current_setting('default_transaction_read_only')::boolean
"""


@dataclass(frozen=True, slots=True)
class Division:
    """How the connections of a worker are divided between the kinds of work.

    ``connections`` is their number, at least 16. The others are in seconds: how long a call waits
    for its share, how long a statement waits for a lock, how long a short read or write may run,
    and how long a COMMIT may take.
    """

    connections: int = 32
    wait: float = 20.0
    lock: float = 10.0
    statement: float = 30.0
    commit: float = 10.0

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
                Limits(self.lock, commit=self.commit),
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
            self._connection = await self._lane.take(self._payer, self._weight)
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

    def __init__(self, url: str, *, size: int = 20, division: Division | None = None) -> None:
        """Divide the connections as ``division`` says, or share ``size`` between all kinds."""
        self.dsn = plain_dsn(url)
        self.memory = Memory()
        if division is None:
            lane = PoolLane(self.dsn, "everything", LaneTerms(size, ready=1), self._prepare)
            self._lanes = dict.fromkeys(WorkKind, lane)
        else:
            lanes = division.lanes().items()
            self._lanes = {
                k: PoolLane(self.dsn, k.value, terms, self._prepare) for k, terms in lanes
            }
        self._pulse: Connection | None = None
        #: Server sessions that hang in a COMMIT, and the lanes in which they keep a place.
        self.hanging_sessions: dict[int, PoolLane] = {}
        self._watch: asyncio.Task[None] | None = None

    @property
    def _each_lane(self) -> list[PoolLane]:
        return list(dict.fromkeys(self._lanes.values()))

    async def open(self) -> None:
        """Connect. Raises DatabaseUnavailable if the database cannot be reached."""
        with translate_errors():
            for lane in self._each_lane:
                await lane.open()

    async def close(self) -> None:
        """Close all connections, waiting at most two seconds for those in use."""
        self._drop_pulse()
        if self._watch is not None:
            self._watch.cancel()
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

        ``weight`` is how many places of the lane the call takes: heavier work counts for more.
        Raises ShareExhausted, DatabaseUnavailable, DataLocked and QueryTooLong.
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
        hanging = sum(kept is lane for kept in self.hanging_sessions.values())
        if 2 * hanging >= lane.shares.size:
            raise DatabaseUnavailable("the database does not confirm what was written before")
        async with self.connection(kind) as connection:
            pid = connection.get_server_pid()
            try:
                seconds = lane.limits.commit
                async with commit.open_transaction(
                    connection, seconds, isolation=isolation, dry=dry
                ):
                    yield connection
            except OutcomeUnknown:
                self._keep_place(pid, lane)
                raise

    @property
    def spare_snapshots(self) -> int:
        """How many more snapshots the current payer could take without waiting."""
        return self._lanes[WorkKind.BULK].shares.spare(payer_var.get())

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Connection]:
        """A read-only transaction that sees a single state throughout.

        If the block fails, the connection is thrown away: it is unusable after an interrupted COPY.
        Raises as ``connection``.
        """
        async with self.connection(WorkKind.BULK) as connection:
            try:
                await connection.execute(
                    f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {READ_SLOWLY}"
                )
                yield connection
                await connection.execute("COMMIT")
            except BaseException:
                cut_session(connection)
                raise

    async def connect(self) -> Connection:
        """A new connection outside the lanes: for listeners and session locks."""
        with translate_errors():
            connection: Connection = await open_session(
                self.dsn, timeout=CONNECT_TIMEOUT, server_settings={"timezone": "UTC"}
            )
            try:
                await self._prepare(connection)
            except BaseException:
                connection.terminate()
                raise
            return connection

    async def _prepare(self, connection: Connection) -> None:
        """Make a new session ready. Raises DatabaseUnavailable if the server is a standby."""
        await prepare_session(connection)
        await notice_epoch(connection, self.memory)

    def _keep_place(self, pid: int, lane: PoolLane) -> None:
        """Hold a place for a session that hangs in its COMMIT: it lives on though its connection is
        cut. Without this, each hanging write would cost the server one more session."""
        self.hanging_sessions[pid] = lane
        lane.shares.hold(Payer())
        if self._watch is None or self._watch.done():
            self._watch = asyncio.create_task(self._watch_hanging())

    async def _watch_hanging(self) -> None:
        while self.hanging_sessions:
            await asyncio.sleep(LOOK)
            try:
                async with self.connection(WorkKind.OWN) as connection:
                    rows = await connection.fetch(_IN_COMMIT, list(self.hanging_sessions))
            except Refused as exc:
                _log.warning("commits_unwatched", error=str(exc))
                continue
            for pid in self.hanging_sessions.keys() - {row[0] for row in rows}:
                self.hanging_sessions.pop(pid).shares.give_back(Payer())


@asynccontextmanager
async def open_database(url: str, *, size: int) -> AsyncIterator[Database]:
    """A database with ``size`` connections, closed after the block. Raises DatabaseUnavailable."""
    database = Database(url, size=size)
    await database.open()
    try:
        yield database
    finally:
        await database.close()
