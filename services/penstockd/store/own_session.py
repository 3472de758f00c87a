"""A session for one organ alone, which gives up on a database that does not answer.

A pooled connection may wait for an answer for as long as the network is silent. An organ that must
know within seconds whether the database responds uses a session of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from penstockd.store.database import Connection, Database, translate_errors

#: How long the database may take to answer, in seconds.
ANSWER = 1.5


class OwnSession:
    """Opened at the first question, and again after each failure. Safe to share between tasks."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._connection: Connection | None = None
        self._asking = asyncio.Lock()

    async def ask(self, question: Callable[[Connection], Awaitable[Any]]) -> Any:
        """Run ``question`` on the connection and return its result. Raises DatabaseUnavailable if
        it takes longer than ANSWER. Any error drops the session."""
        async with self._asking:
            try:
                with translate_errors():
                    async with asyncio.timeout(ANSWER):
                        if self._connection is None or self._connection.is_closed():
                            self._connection = await self._database.connect()
                        return await question(self._connection)
            except BaseException:
                self.drop()
                raise

    def drop(self) -> None:
        """End the session abruptly: a hanging server would not answer a goodbye."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None
