"""A time limit for long statements."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from penstockd.store.database import Connection


class StatementTooLong(Exception):
    """A statement exceeded its time limit and was cancelled."""


@asynccontextmanager
async def statement_limit(connection: Connection, seconds: float) -> AsyncIterator[None]:
    """Limit each statement of the transaction to ``seconds``. Raises StatementTooLong."""
    milliseconds = str(int(seconds * 1000))
    await connection.execute("SELECT set_config('statement_timeout', $1, true)", milliseconds)
    try:
        yield
    except asyncpg.QueryCanceledError as exc:
        raise StatementTooLong(f"longer than {seconds:g} s") from exc
