"""Statements that may take long, and must not take longer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from penstockd.store.database import Connection


class StatementTooLong(Exception):
    """A statement took longer than it had been given, and was ended."""


@asynccontextmanager
async def statement_limit(connection: Connection, seconds: float) -> AsyncIterator[None]:
    """Let no statement of the transaction take longer. Raises StatementTooLong."""
    milliseconds = str(int(seconds * 1000))
    await connection.execute("SELECT set_config('statement_timeout', $1, true)", milliseconds)
    try:
        yield
    except asyncpg.QueryCanceledError as exc:
        raise StatementTooLong(f"longer than {seconds:g} s") from exc
