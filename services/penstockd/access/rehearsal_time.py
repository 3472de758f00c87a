"""How long rehearsals may take."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from penstockd.errors import RehearsalTooLong
from penstockd.store.database import Connection, Database
from penstockd.store.limits import StatementTooLong, statement_limit

#: How long a rehearsal may take in all, in seconds.
TIME_LIMIT = 20.0


@asynccontextmanager
async def rehearsal_state(database: Database) -> AsyncIterator[Connection]:
    """One state of the data. Raises RehearsalTooLong if the block takes too long."""
    try:
        async with (
            asyncio.timeout(TIME_LIMIT),
            database.snapshot() as connection,
            statement_limit(connection, TIME_LIMIT),
        ):
            yield connection
    except (TimeoutError, StatementTooLong) as exc:
        raise RehearsalTooLong(
            f"the rehearsal took longer than {TIME_LIMIT:g} s; ask for less, such as fewer days"
        ) from exc
