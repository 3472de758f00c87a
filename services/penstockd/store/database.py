"""Connections to PostgreSQL, and the one place where its errors become the hub's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import date
from typing import Any, TypeAlias
from urllib.parse import parse_qsl, urlsplit, urlunsplit

import asyncpg

from penstockd.errors import Conflict, DatabaseUnavailable, StorageFull

#: How long a call waits for a connection before the database counts as unavailable, in seconds.
CONNECT_TIMEOUT = 1.5

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

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


@contextmanager
def translated() -> Iterator[None]:
    """Driver errors leave as domain errors; their text stays in the cause, for the log."""
    try:
        yield
    except _CONFLICTS as exc:
        raise Conflict("another writer changed the same records; repeat the call") from exc
    except (asyncpg.DiskFullError, asyncpg.OutOfMemoryError) as exc:
        raise StorageFull("the database has no room left; nothing was written") from exc
    except _UNAVAILABLE as exc:
        raise DatabaseUnavailable("the database cannot be reached") from exc


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


class Database:
    """A pool of connections. Opened once per process; safe to share between tasks."""

    def __init__(self, url: str, *, size: int = 20) -> None:
        self.dsn = plain_dsn(url)
        self._size = size
        self._lent: set[Any] = set()
        self._snapshots = asyncio.Semaphore(max(1, size // 2))
        self._pool: asyncpg.Pool[asyncpg.Record] | None = None
        self._pulse: Connection | None = None

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
                init=_take_dates_literally,
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
                await asyncio.wait_for(self._pool.close(), 2)
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

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection, translated errors included. Raises DatabaseUnavailable within 2 s."""
        assert self._pool is not None, "the database is not open"
        with translated():
            async with self._pool.acquire(timeout=CONNECT_TIMEOUT) as connection:
                self._lent.add(connection)
                try:
                    yield connection  # type: ignore[misc]  # a proxy with the connection's methods
                finally:
                    self._lent.discard(connection)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A transaction that commits if the block ends without an error."""
        async with self.connection() as connection, connection.transaction():
            yield connection

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Connection]:
        """A read-only transaction that sees a single state throughout.

        If the block fails, the connection is thrown away: a COPY that was cut off in the middle
        leaves nothing that could be used again. Half of the connections at most are lent so, lest
        long exports leave none for short calls; the others wait.
        """
        async with self._snapshots, self.connection() as connection:
            await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            try:
                yield connection
            except BaseException:
                connection.terminate()
                raise
            await connection.execute("COMMIT")

    async def connect(self) -> Connection:
        """A connection of one's own, outside the pool: for listeners and session locks."""
        with translated():
            connection = await asyncpg.connect(
                self.dsn, timeout=CONNECT_TIMEOUT, server_settings={"timezone": "UTC"}
            )
            await _take_dates_literally(connection)
            return connection
