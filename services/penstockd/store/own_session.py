"""Sessions for one organ alone, outside the lanes: few at a time, and dropped if the database does
not answer.

A pooled connection may wait for an answer for as long as the network is silent. An organ that must
know within seconds whether the database responds uses a session of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from penstockd.errors import DatabaseUnavailable
from penstockd.shares import Shares, ShareTerms
from penstockd.store.database import Connection, Database, translate_errors
from penstockd.store.session import session_of

#: How long the database may take to answer, in seconds.
ANSWER = 1.5
#: Sessions of one organ that may live on in the server after they were cut; see ``hanging``.
MOST_HANGING = 2


class OwnSessions:
    """Opens sessions for one organ, and cuts them. Those that hang in the server are bounded."""

    def __init__(self, database: Database, *, most_hanging: int = MOST_HANGING) -> None:
        self._database = database
        self._places = Shares(most_hanging, ShareTerms(), what="sessions")

    async def open(self) -> Connection:
        """A new session. Raises DatabaseUnavailable, also while too many earlier ones hang."""
        hanging = self._database.hanging
        if not self._places.free:
            await hanging.check()
        if not self._places.free:
            raise DatabaseUnavailable("the database does not confirm what was written before")
        return await self._database.connect()

    def cut(self, connection: Connection) -> None:
        """End a session that may be working: it keeps its place until the server has ended it."""
        if not connection.is_closed():
            session = session_of(connection)
            connection.terminate()
            self._database.hanging.keep(session, self._places)


class OwnSession:
    """Opened at the first question, and again after each failure. Safe to share between tasks."""

    def __init__(
        self, database: Database, prepare: Callable[[Connection], Awaitable[None]] | None = None
    ) -> None:
        """``prepare`` is awaited with each new session before the first question."""
        self._sessions, self._prepare = OwnSessions(database), prepare
        self._connection: Connection | None = None
        self._asking = asyncio.Lock()

    async def ask(self, question: Callable[[Connection], Awaitable[Any]]) -> Any:
        """Run ``question`` on the connection and return its result. Raises DatabaseUnavailable if
        it takes longer than ANSWER. Any error cuts the session."""
        async with self._asking:
            try:
                with translate_errors():
                    async with asyncio.timeout(ANSWER):
                        if self._connection is None or self._connection.is_closed():
                            self._connection = await self._sessions.open()
                            if self._prepare is not None:
                                await self._prepare(self._connection)
                        return await question(self._connection)
            except BaseException:
                connection, self._connection = self._connection, None
                if connection is not None:
                    self._sessions.cut(connection)
                raise

    def drop(self) -> None:
        """End the session abruptly: a hanging server would not answer a goodbye."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None
