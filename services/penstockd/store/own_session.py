"""A session with the database for one organ alone, which gives up a database that does not answer.

A connection that a pool lends may wait for its answer for as long as the network keeps silent. What
must know within seconds whether the database is there asks on a session of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from penstockd.store.database import Connection, Database, translated

#: How long the database may take to answer, in seconds.
ANSWER = 1.5


class OwnSession:
    """Opened when it is first asked, and anew after each failure. Safe to share between tasks."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: Connection | None = None
        self._asking = asyncio.Lock()

    async def ask(self, question: Callable[[Connection], Awaitable[Any]]) -> Any:
        """What ``question`` returns, given the connection. Raises DatabaseUnavailable if it takes
        longer than ANSWER, and drops the session then."""
        async with self._asking:
            try:
                with translated():
                    async with asyncio.timeout(ANSWER):
                        if self._connection is None or self._connection.is_closed():
                            self._connection = await self._database.connect()
                        return await question(self._connection)
            except BaseException:
                self.drop()
                raise

    def drop(self) -> None:
        """End the session without a goodbye, which a server that hangs would not answer."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None
