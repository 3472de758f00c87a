"""Connections to PostgreSQL, and the one place where its errors become the hub's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from datetime import date
from typing import Any, Literal, TypeAlias
from urllib.parse import parse_qsl, urlsplit, urlunsplit

import asyncpg

from penstockd.errors import Conflict, DatabaseUnavailable, StorageFull
from penstockd.store.sockets import READ_SLOWLY, open_session

#: How long a call waits for a connection before the database counts as unavailable, in seconds.
CONNECT_TIMEOUT = 1.5
#: A connection that lay idle for longer is asked for a sign of life before it is lent, in seconds;
#: and how long it may take to give one.
IDLE_UNCHECKED = 3.0
SIGN_TIMEOUT = 0.5

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Isolation: TypeAlias = Literal["read_committed", "repeatable_read", "serializable"]
#: Rows that are fetched some at a time, within a transaction.
Rows: TypeAlias = "asyncpg.cursor.Cursor[asyncpg.Record]"

_UNAVAILABLE = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # the connection broke in the middle of an answer
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    # The server lets us not in: to whoever calls the hub that is the same.
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
)
_CONFLICTS = (
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.LockNotAvailableError,
    asyncpg.UniqueViolationError,
)


def _as_ours(error: BaseException) -> Exception | None:
    """What a driver's error is to the hub's callers; None if it is not the driver's."""
    if isinstance(error, _CONFLICTS):
        return Conflict("another writer changed the same records; repeat the call")
    if isinstance(error, asyncpg.DiskFullError | asyncpg.OutOfMemoryError):
        return StorageFull("the database has no room left; nothing was written")
    if isinstance(error, _UNAVAILABLE):
        return DatabaseUnavailable("the database cannot be reached")
    return None


@contextmanager
def translated() -> Iterator[None]:
    """Driver errors leave as domain errors; their text stays in the cause, for the log."""
    try:
        yield
    except Exception as exc:
        ours = _as_ours(exc)
        if ours is None:
            raise
        raise ours from exc


def plain_dsn(url: str) -> str:
    """A SQLAlchemy URL or a libpq URL as one that asyncpg and libpq read."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(scheme=parts.scheme.split("+")[0]))


def place(url: str) -> str:
    """Where a database is, without user and password: "host:5432/name"."""
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    host = query.get("host") or parts.netloc.rpartition("@")[2] or "localhost"
    port = f":{query['port']}" if "port" in query else ""
    return f"{host}{port}{parts.path}"


#: Day 0 of PostgreSQL, as ``date.toordinal`` counts.
_FIRST_DAY = date(2000, 1, 1).toordinal()


async def _take_dates_literally(connection: Any) -> None:
    """The driver sends and reads 0001-01-01 and 9999-12-31 as -infinity and infinity; here they
    are days like any other, in every parameter, array, row and COPY of the connection."""
    await connection.set_type_codec(
        "date",
        schema="pg_catalog",
        format="tuple",
        encoder=lambda day: (day.toordinal() - _FIRST_DAY,),
        decoder=lambda days: date.fromordinal(days[0] + _FIRST_DAY),
    )


class _PooledConnection(asyncpg.Connection):
    """Goes back to the pool as it is.

    All that the hub sets in a session ends with a transaction, so there is nothing to reset, and a
    round trip to spare.
    """

    #: When it was last known to answer, by the monotonic clock.
    answered = 0.0

    def get_reset_query(self) -> str:
        return ""

    def note_answer(self) -> None:
        """It answered just now."""
        self.answered = time.monotonic()


def _usable(connection: Any) -> bool:
    """Whether a connection from the pool is open; the pool takes back by itself those that broke,
    and they answer nothing after that."""
    try:
        return not connection.is_closed()
    except asyncpg.InterfaceError:
        return False


async def gives_sign(connection: Any) -> bool:
    """Whether a connection answers within SIGN_TIMEOUT; one that does not is cut."""
    try:
        async with asyncio.timeout(SIGN_TIMEOUT):
            await connection.execute("SELECT 1")
    except Exception as exc:
        connection.terminate()
        if _as_ours(exc) is None:
            raise
        return False
    return True


class _Lease:
    """A connection for the length of a block. Written out, since every call pays for it."""

    __slots__ = ("_connection", "_database")

    def __init__(self, database: Database) -> None:
        self._database = database

    async def __aenter__(self) -> Connection:
        try:
            self._connection = await self._database._take()
        except Exception as exc:
            if (ours := _as_ours(exc)) is None:
                raise
            raise ours from exc
        return self._connection

    async def __aexit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        with translated():
            await self._database._give_back(self._connection, clean=error is None)
        if error is not None and (ours := _as_ours(error)) is not None:
            raise ours from error


class Database:
    """A pool of connections. Opened once per process; safe to share between tasks."""

    def __init__(self, url: str, *, size: int = 20) -> None:
        self.dsn = plain_dsn(url)
        self._size = size
        self._lent: set[Any] = set()
        # Taken from the pool before and free: to give one back and take it again costs more than
        # a short query. They go back when somebody waits for the pool, or when they fail.
        self._warm: list[Any] = []
        self._waiting = 0
        self._most_snapshots = max(1, size // 2)
        self._snapshots = asyncio.Semaphore(self._most_snapshots)
        self._reading = 0
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._pulse: Connection | None = None
        # What answered last before this moment may be dead: something like it was.
        self._doubted = 0.0

    async def open(self) -> None:
        """Connect. Raises DatabaseUnavailable if no connection can be had."""
        with translated():
            self._pool = await asyncpg.create_pool(
                self.dsn,
                min_size=1,
                max_size=self._size,
                timeout=CONNECT_TIMEOUT,
                command_timeout=None,
                max_inactive_connection_lifetime=300,
                connect=open_session,
                init=_take_dates_literally,
                connection_class=_PooledConnection,
                server_settings={
                    "application_name": "penstock",
                    "timezone": "UTC",
                    "datestyle": "ISO",
                    "intervalstyle": "iso_8601",
                    # Whatever the user's server is set to: the sequencer counts on this one.
                    "default_transaction_isolation": "read committed",
                    "extra_float_digits": "1",
                    "bytea_output": "hex",
                    "jit": "off",
                    "idle_in_transaction_session_timeout": "60000",
                },
            )

    async def close(self) -> None:
        """Close all connections, waiting at most two seconds for those in use."""
        self._drop_pulse()
        if self._pool is not None:
            try:
                async with asyncio.timeout(2):
                    while self._warm:
                        await self._pool.release(self._warm.pop())
                    await self._pool.close()
            except TimeoutError:
                self._pool.terminate()

    async def ping(self) -> None:
        """Raise DatabaseUnavailable unless the database answers within CONNECT_TIMEOUT.

        It has a connection of its own: calls that hold all of the pool's are no outage.
        """
        try:
            with translated():
                async with asyncio.timeout(CONNECT_TIMEOUT):
                    if self._pulse is None or self._pulse.is_closed():
                        self._pulse = await self.connect()
                    await self._pulse.execute("SELECT 1")
        except BaseException:
            self._doubted = time.monotonic()
            self._drop_pulse()
            raise

    def abandon(self) -> None:
        """Cut all connections in use: their calls fail as DatabaseUnavailable, now.

        For a server that has stopped answering: nothing else would end the calls that wait for it.
        """
        for connection in list(self._lent):
            connection.terminate()

    def _drop_pulse(self) -> None:
        """Without a goodbye, which a server that hangs would not answer."""
        if self._pulse is not None:
            self._pulse.terminate()
            self._pulse = None

    def connection(self) -> AbstractAsyncContextManager[Connection]:
        """A connection, translated errors included. Raises DatabaseUnavailable within 2 s."""
        return _Lease(self)

    async def _take(self) -> Connection:
        while True:
            connection = await self._take_any()
            self._lent.add(connection)
            try:
                if await self._answers(connection):
                    return connection  # type: ignore[no-any-return]  # a proxy with its methods
            except BaseException:
                self._lent.discard(connection)
                connection.terminate()
                raise
            self._lent.discard(connection)

    async def _take_any(self) -> Any:
        assert self._pool is not None, "the database is not open"
        while self._warm:
            connection = self._warm.pop()
            if _usable(connection):
                return connection
            await self._pool.release(connection)
        # A new connection has CONNECT_TIMEOUT to come up, and so has one that others hold.
        self._waiting += 1
        try:
            return await self._pool.acquire(timeout=CONNECT_TIMEOUT)
        finally:
            self._waiting -= 1

    async def _answers(self, connection: Any) -> bool:
        """Whether a connection that lay idle, or is in doubt, gives a sign of life.

        A network that lost its state drops what is sent without a word: whoever is lent such a
        connection waits for the system to give it up. One that gives no sign takes all with it
        that lie idle: to ask each in turn would take the caller as long again for each.
        """
        asked = time.monotonic()
        if connection.answered >= max(self._doubted, asked - IDLE_UNCHECKED):
            return True
        is_new = not connection.answered
        if not is_new and not await gives_sign(connection):
            await self._drop_idle(asked)
            return False
        connection.note_answer()
        return True

    async def _drop_idle(self, since: float) -> None:
        """Lend no connection again that has given no sign since then."""
        assert self._pool is not None
        self._doubted = max(self._doubted, since)
        for connection in [c for c in self._warm if not _usable(c) or c.answered < since]:
            self._warm.remove(connection)
            connection.terminate()
        await self._pool.expire_connections()

    async def _give_back(self, connection: Any, *, clean: bool) -> None:
        assert self._pool is not None
        self._lent.discard(connection)
        if clean and not self._waiting and _usable(connection):
            connection.note_answer()
            self._warm.append(connection)
        else:
            await self._pool.release(connection)

    @asynccontextmanager
    async def transaction(self, *, isolation: Isolation | None = None) -> AsyncIterator[Connection]:
        """A transaction that commits if the block ends without an error."""
        async with self.connection() as connection, connection.transaction(isolation=isolation):
            yield connection

    @property
    def spare_snapshots(self) -> int:
        """How many more ``snapshot`` would lend without waiting."""
        return self._most_snapshots - self._reading

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Connection]:
        """A read-only transaction that sees a single state throughout.

        If the block fails, the connection is thrown away: a COPY that was cut off in the middle
        leaves nothing that could be used again. Half of the connections at most are lent so, lest
        long exports leave none for short calls; the others wait.
        """
        async with self._snapshots, self.connection() as connection:
            self._reading += 1
            try:
                await connection.execute(
                    f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {READ_SLOWLY}"
                )
                yield connection
                await connection.execute("COMMIT")
            except BaseException:
                connection.terminate()
                raise
            finally:
                self._reading -= 1

    async def connect(self) -> Connection:
        """A connection of one's own, outside the pool: for listeners and session locks."""
        with translated():
            connection: Connection = await open_session(
                self.dsn, timeout=CONNECT_TIMEOUT, server_settings={"timezone": "UTC"}
            )
            await _take_dates_literally(connection)
            return connection
