"""Server sessions that live on although this process has cut them.

A COMMIT that waits for a synchronous standby notices neither that its client has gone nor a time
limit. Each retry would cost the server one more session, until it has none left for anybody. So a
session that is cut keeps its place until the server has ended it, and work for which no place is
left is refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

import structlog

from penstockd.errors import Refused
from penstockd.shares import Payer, Shares
from penstockd.store.servers import ServerSession

#: How often the hub checks whether the sessions that it cut have ended, in seconds.
LOOK = 1.0
#: Those of some sessions that are still working, though nobody waits for them. Another session may
#: have got the same process id since.
STILL_ACTIVE = """
SELECT pid, backend_start FROM pg_stat_activity AS a
JOIN unnest($1::int[], $2::timestamptz[]) AS s (pid, backend_start) USING (pid, backend_start)
WHERE a.state = 'active'
"""

_log = structlog.get_logger(__name__)


class HangingSessions:
    """The sessions that one process has cut, and the places that they keep.

    ``look`` returns those of some sessions that are still active; it raises Refused if the database
    does not answer.
    """

    def __init__(
        self, look: Callable[[Sequence[ServerSession]], Awaitable[Collection[ServerSession]]]
    ) -> None:
        self._look = look
        self._kept: dict[ServerSession, Shares] = {}
        self._watching: asyncio.Task[None] | None = None

    @property
    def kept(self) -> Mapping[ServerSession, Shares]:
        """The sessions, each with the places that it keeps."""
        return self._kept

    def keep(self, session: ServerSession, places: Shares) -> None:
        """Keep the places of a session that was cut, until the server has ended it."""
        if session in self._kept:
            return
        self._kept[session] = places
        places.hold(Payer())
        if self._watching is None or self._watching.done():
            self._watching = asyncio.create_task(self._watch())

    def count(self, places: Shares) -> int:
        """How many of the places are kept for sessions that were cut."""
        return sum(kept is places for kept in self._kept.values())

    async def check(self) -> None:
        """Give back the places of sessions that have ended. Raises Refused."""
        asked = list(self._kept)
        active = await self._look(asked) if asked else ()
        for session in set(asked) - set(active):
            if (places := self._kept.pop(session, None)) is not None:
                places.give_back(Payer())

    def stop(self) -> None:
        """Stop watching."""
        if self._watching is not None:
            self._watching.cancel()

    async def _watch(self) -> None:
        while self._kept:
            await asyncio.sleep(LOOK)
            try:
                await self.check()
            except Refused as exc:
                _log.warning("sessions_unwatched", error=str(exc))
