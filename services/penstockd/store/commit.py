"""Transactions whose end is known, or is said to be unknown.

A COMMIT may hang for ever although the server is well: with synchronous replication it waits for a
standby, and ``statement_timeout`` does not cover that wait. What breaks off in a COMMIT was done or
was not. A caller is told so; it is never told that all went well.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import structlog

from penstockd.errors import DatabaseUnavailable, OutcomeUnknown
from penstockd.store.session import Connection, Isolation, cut_session, usable

#: A server that says one of these in place of an answer may have done the COMMIT before.
_BROKEN_OFF = (
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
)

_log = structlog.get_logger(__name__)


@asynccontextmanager
async def transaction(
    connection: Connection, seconds: float, *, isolation: Isolation | None = None, dry: bool = False
) -> AsyncIterator[None]:
    """A transaction that commits if the block ends without an error; a ``dry`` one never does.

    Raises OutcomeUnknown if it is not known whether it was committed; the connection is cut then,
    as it is after ``seconds`` in a COMMIT. What the server says of a COMMIT that it has not done is
    raised as the driver raises it.
    """
    began = connection.transaction(isolation=isolation)
    await began.start()
    try:
        yield
    except BaseException:
        await _roll_back(connection, began)
        raise
    if dry:
        await _roll_back(connection, began)
    else:
        await send_commit(connection, began, seconds)


async def _roll_back(connection: Any, began: Any) -> None:
    """A connection that broke, or that takes too long, is rolled back by being cut."""
    if not usable(connection):
        return
    try:
        await began.rollback()
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as exc:
        _log.info("not_rolled_back", error=repr(exc))
        cut_session(connection)


async def send_commit(connection: Any, began: Any, seconds: float) -> None:
    """Send COMMIT over a bare connection. Raises as ``transaction`` does."""
    warnings: list[str] = []

    def heard(_: object, message: Any) -> None:
        # "canceling wait for synchronous replication": the server then says that all went well.
        if message.severity_en == "WARNING":
            warnings.append(str(message))

    if not usable(connection):
        raise DatabaseUnavailable("the connection broke before the COMMIT")
    loop = asyncio.get_running_loop()
    # Cut, not cancelled: a server that is asked to cancel the wait for a standby makes the
    # transaction visible, though it may be lost, and says that it is committed.
    timer = loop.call_later(seconds, cut_session, connection) if seconds else None
    connection.add_log_listener(heard)
    try:
        await began.commit()
    except asyncpg.PostgresError as exc:
        if isinstance(exc, _BROKEN_OFF):
            raise _unknown(connection, "the database broke off") from exc
        raise
    except asyncio.CancelledError:
        cut_session(connection)
        raise
    except Exception as exc:
        raise _unknown(connection, "the database did not answer") from exc
    finally:
        if timer is not None:
            timer.cancel()
        if usable(connection):
            connection.remove_log_listener(heard)
    if warnings:
        raise _unknown(connection, f"the database warns: {warnings[0]}")


def _unknown(connection: Any, why: str) -> OutcomeUnknown:
    _log.warning("outcome_unknown", why=why)
    if usable(connection):
        cut_session(connection)
    return OutcomeUnknown(
        "it is not known whether this was written: the database did not confirm it in time; repeat"
        " the call with the same request_id, or read what is there before you write it again"
    )
