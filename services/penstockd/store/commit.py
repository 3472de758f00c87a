"""Transactions whose outcome is known, or is reported as unknown.

A COMMIT may hang for ever on a healthy server: with synchronous replication it waits for a standby,
and ``statement_timeout`` does not cover that wait. A COMMIT that breaks off may or may not have
been done. The caller gets OutcomeUnknown, never success.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import structlog

from penstockd.errors import DatabaseUnavailable, OutcomeUnknown
from penstockd.store.session import Connection, Isolation, cut_session, is_usable

#: A server that answers with one of these may already have done the COMMIT.
_BROKEN_OFF = (
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
)

_log = structlog.get_logger(__name__)


@asynccontextmanager
async def open_transaction(
    connection: Connection, seconds: float, *, isolation: Isolation | None = None, dry: bool = False
) -> AsyncIterator[None]:
    """A transaction that commits if the block ends without an error; a ``dry`` one never does.

    Raises OutcomeUnknown if it is not known whether it was committed; the connection is then cut,
    as it is after ``seconds`` in a COMMIT. If the server reports that it did not commit, the
    driver's error is raised unchanged.
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
    """Roll back; a connection that fails or takes too long is cut, which rolls it back too."""
    if not is_usable(connection):
        return
    try:
        await began.rollback()
    except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as exc:
        _log.info("not_rolled_back", error=repr(exc))
        cut_session(connection)


async def send_commit(connection: Any, began: Any, seconds: float) -> None:
    """Send COMMIT over a bare connection. Raises as ``open_transaction`` does."""
    warnings: list[str] = []

    def heard(_: object, message: Any) -> None:
        # "canceling wait for synchronous replication": the server then still reports success.
        if message.severity_en == "WARNING":
            warnings.append(str(message))

    if not is_usable(connection):
        raise DatabaseUnavailable("the connection broke before the COMMIT")
    loop = asyncio.get_running_loop()
    # Cut, not cancelled: a server asked to cancel the wait for a standby makes the transaction
    # visible, though it may be lost, and reports it as committed.
    timer = loop.call_later(seconds, cut_session, connection) if seconds else None
    connection.add_log_listener(heard)
    try:
        await began.commit()
    except asyncpg.PostgresError as exc:
        if isinstance(exc, _BROKEN_OFF):
            raise _outcome_unknown(connection, "the database broke off") from exc
        raise
    except asyncio.CancelledError:
        cut_session(connection)
        raise
    except Exception as exc:
        raise _outcome_unknown(connection, "the database did not answer") from exc
    finally:
        if timer is not None:
            timer.cancel()
        if is_usable(connection):
            connection.remove_log_listener(heard)
    if warnings:
        raise _outcome_unknown(connection, f"the database warns: {warnings[0]}")


def _outcome_unknown(connection: Any, why: str) -> OutcomeUnknown:
    _log.warning("outcome_unknown", why=why)
    if is_usable(connection):
        cut_session(connection)
    return OutcomeUnknown(
        "it is not known whether this was written: the database did not confirm it in time; repeat"
        " the call with the same request_id, or read the records before you write them again"
    )
