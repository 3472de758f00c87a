"""PostgreSQL sessions as the hub sets them up, and the translation of the driver's errors."""

from __future__ import annotations

import asyncio
import time
import traceback
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
    RequestTooLarge,
    StorageFull,
)
from penstockd.store.servers import ServerIdentity, ServerSession

#: How long a new connection may take to come up, in seconds.
CONNECT_TIMEOUT = 1.5
#: A connection idle for longer than this, in seconds, is probed before it is lent; and how long it
#: may take to answer.
IDLE_UNCHECKED = 3.0
SIGN_TIMEOUT = 0.5

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Isolation: TypeAlias = Literal["read_committed", "repeatable_read", "serializable"]
#: Rows fetched in batches, within a transaction.
Rows: TypeAlias = "asyncpg.cursor.Cursor[asyncpg.Record]"

_UNAVAILABLE = (
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # the connection broke in the middle of an answer
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    # The server denies the login: for callers of the hub the effect is the same.
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
)
#: The modules that communicate with the server.
_DRIVERS = ("asyncpg", "penstockd.store.copyout", "penstockd.store.sockets")
_CONFLICTS = (
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.UniqueViolationError,
)


def _is_drivers(error: OSError) -> bool:
    """Whether a system error arose in the driver, and not in the hub's own work: a full disk of the
    hub, for example, says nothing about the database."""
    if isinstance(error, ConnectionError):
        return True
    innermost = ""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        name = str(frame.f_globals.get("__name__", ""))
        # An error that a step waits for passes through the budget on its way to the awaiting code.
        if name.partition(".")[0] in ("asyncpg", "penstockd") and name != "penstockd.budget":
            innermost = name
    return innermost.startswith(_DRIVERS)


def as_ours(error: BaseException) -> Exception | None:
    """The domain error for a driver's error; None for any other error."""
    if isinstance(error, _CONFLICTS):
        return Conflict("another writer changed the same records; repeat the call")
    if isinstance(error, asyncpg.LockNotAvailableError):
        return DataLocked("others have locked these records for too long; nothing was written")
    if isinstance(error, asyncpg.QueryCanceledError):
        return QueryTooLong("the query takes longer than a call of its kind may; ask for less")
    if isinstance(error, asyncpg.DiskFullError | asyncpg.OutOfMemoryError):
        return StorageFull("the disk of the database is full; nothing was written")
    if isinstance(error, asyncpg.ProgramLimitExceededError):
        return RequestTooLarge("a value is larger than the database can hold")
    if isinstance(error, asyncpg.ReadOnlySQLTransactionError):
        return DatabaseUnavailable("the database takes no writes: it is a standby, or read-only")
    if isinstance(error, _UNAVAILABLE) or (isinstance(error, OSError) and _is_drivers(error)):
        return DatabaseUnavailable("the database cannot be reached")
    return None


@contextmanager
def translate_errors() -> Iterator[None]:
    """Raise driver errors as domain errors; their text stays in the cause, for the log."""
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
    infinity; the hub treats them as ordinary days, in every parameter, array, row and COPY."""
    await connection.set_type_codec(
        "date",
        schema="pg_catalog",
        format="tuple",
        encoder=lambda day: (day.toordinal() - _FIRST_DAY,),
        decoder=lambda days: date.fromordinal(days[0] + _FIRST_DAY),
    )


class OwnConnection(asyncpg.Connection):
    """A connection that knows its server."""

    #: Its server, and the session there; None until it was asked.
    server: ServerIdentity | None = None
    session: ServerSession | None = None

    def note_server(self, server: ServerIdentity, session: ServerSession) -> None:
        """Note where it leads."""
        self.server, self.session = server, session


class PooledConnection(OwnConnection):
    """A connection that returns to the pool without a reset.

    Everything that the hub sets in a session ends with its transaction, so there is nothing to
    reset, which saves a round trip.
    """

    #: The time when it was last known to answer, by the monotonic clock.
    answered = 0.0

    def get_reset_query(self) -> str:
        """No query."""
        return ""

    def note_answer(self) -> None:
        """Note that it answered just now."""
        self.answered = time.monotonic()


def session_of(connection: Any) -> ServerSession:
    """The session of a connection that the hub has prepared."""
    session: ServerSession | None = connection.session
    assert session is not None, "it was prepared"
    return session


def is_usable(connection: Any) -> bool:
    """Whether a connection from the pool is open. The pool takes broken ones back by itself; using
    one after that raises InterfaceError."""
    try:
        return not connection.is_closed()
    except asyncpg.InterfaceError:
        return False


def cut_session(connection: Any) -> None:
    """End a lent session abruptly; does nothing if it was already cut and returned to the pool."""
    with suppress(asyncpg.InterfaceError):
        connection.terminate()


async def gives_sign(connection: Any) -> bool:
    """Whether a connection answers within SIGN_TIMEOUT; it is cut if not."""
    try:
        async with asyncio.timeout(SIGN_TIMEOUT):
            await connection.execute("SELECT 1")
    except Exception as exc:
        connection.terminate()
        if as_ours(exc) is None:
            raise
        return False
    return True
