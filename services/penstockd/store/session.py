"""Sessions of PostgreSQL as the hub has them, and what the driver's errors are to its callers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import date
from typing import Any, Literal, TypeAlias

import asyncpg

from penstockd.errors import (
    Conflict,
    DatabaseUnavailable,
    DataLocked,
    QueryTooLong,
    StorageFull,
)

#: How long a new connection may take to come up, in seconds.
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
    asyncpg.UniqueViolationError,
)


def as_ours(error: BaseException) -> Exception | None:
    """What a driver's error is to the hub's callers; None if it is not the driver's."""
    if isinstance(error, _CONFLICTS):
        return Conflict("another writer changed the same records; repeat the call")
    if isinstance(error, asyncpg.LockNotAvailableError):
        return DataLocked("others have locked these records for too long; nothing was written")
    if isinstance(error, asyncpg.QueryCanceledError):
        return QueryTooLong("the query takes longer than a call of its kind may; ask for less")
    if isinstance(error, asyncpg.DiskFullError | asyncpg.OutOfMemoryError):
        return StorageFull("the database has no room left; nothing was written")
    if isinstance(error, asyncpg.ReadOnlySQLTransactionError):
        return DatabaseUnavailable("the database takes no writes: it is a standby, or read-only")
    if isinstance(error, _UNAVAILABLE):
        return DatabaseUnavailable("the database cannot be reached")
    return None


@contextmanager
def translated() -> Iterator[None]:
    """Driver errors leave as domain errors; their text stays in the cause, for the log."""
    try:
        yield
    except Exception as exc:
        ours = as_ours(exc)
        if ours is None:
            raise
        raise ours from exc


#: Day 0 of PostgreSQL, as ``date.toordinal`` counts.
_FIRST_DAY = date(2000, 1, 1).toordinal()


async def prepare_session(connection: Any) -> None:
    """Take dates literally. The driver sends and reads 0001-01-01 and 9999-12-31 as -infinity and
    infinity; here they are days like any other, in every parameter, array, row and COPY."""
    await connection.set_type_codec(
        "date",
        schema="pg_catalog",
        format="tuple",
        encoder=lambda day: (day.toordinal() - _FIRST_DAY,),
        decoder=lambda days: date.fromordinal(days[0] + _FIRST_DAY),
    )


class PooledConnection(asyncpg.Connection):
    """Goes back to the pool as it is.

    All that the hub sets in a session ends with a transaction, so there is nothing to reset, and a
    round trip to spare.
    """

    #: When it was last known to answer, by the monotonic clock.
    answered = 0.0

    def get_reset_query(self) -> str:
        """Nothing."""
        return ""

    def note_answer(self) -> None:
        """It answered just now."""
        self.answered = time.monotonic()


def usable(connection: Any) -> bool:
    """Whether a connection from the pool is open; the pool takes back by itself those that broke,
    and they answer nothing after that."""
    try:
        return not connection.is_closed()
    except asyncpg.InterfaceError:
        return False


def cut_session(connection: Any) -> None:
    """End a session that was lent, without a goodbye. One that has been cut before, by whoever came
    first, is the pool's again: there is nothing to do."""
    with suppress(asyncpg.InterfaceError):
        connection.terminate()


async def gives_sign(connection: Any) -> bool:
    """Whether a connection answers within SIGN_TIMEOUT; one that does not is cut."""
    try:
        async with asyncio.timeout(SIGN_TIMEOUT):
            await connection.execute("SELECT 1")
    except Exception as exc:
        connection.terminate()
        if as_ours(exc) is None:
            raise
        return False
    return True
