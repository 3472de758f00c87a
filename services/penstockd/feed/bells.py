"""Bells that wake the calls of this process that wait for leases or deliveries.

Each thing that only one call can take has a line. The first waiting call of a line looks into the
database and waits; the others stand behind it. So a thousand waiting calls cost the database no
more than one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from weakref import WeakValueDictionary

from penstockd.store.announcements import BELL_CHANNEL, Announcements
from penstockd.store.database import Connection


def subscription_line(consumer_id: str, subscription_id: str) -> str:
    """The line of those who wait for leases of a subscription."""
    return f"subscriptions/{consumer_id}/{subscription_id}"


def webhook_line(webhook_id: str) -> str:
    """The line of those who wait for deliveries that they pull."""
    return f"webhooks/{webhook_id}"


async def ring_everywhere(announcements: Announcements, connection: Connection, name: str) -> None:
    """Ring a line in all processes, once the connection's transaction is committed."""
    await announcements.announce(connection, BELL_CHANNEL, name)


class Line:
    """A line. ``rung`` counts: whoever looked at some count need not look again at the same one."""

    def __init__(self) -> None:
        self.rung = 0
        #: Rung as well when the log goes beyond this number.
        self.after: int | None = None
        self._moved = asyncio.Event()
        self._first = asyncio.Lock()

    def ring(self) -> None:
        """Something may be there."""
        self.rung += 1
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    async def wait(self, rung: int, seconds: float) -> None:
        """Return when the line was rung since it stood at ``rung``, or when the time is over."""
        if self.rung == rung and seconds > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._moved.wait()

    @asynccontextmanager
    async def turn(self, seconds: float) -> AsyncIterator[bool]:
        """Be the first in the line; False if others were before, for all of the time."""
        first = False
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                first = await self._first.acquire()
        try:
            yield first
        finally:
            if first:
                self._first.release()


class Bells:
    """The lines of one process, as long as somebody has them."""

    def __init__(self) -> None:
        self._lines: WeakValueDictionary[str, Line] = WeakValueDictionary()

    def line(self, name: str) -> Line:
        """The line of that name."""
        line = self._lines.get(name)
        if line is None:
            line = self._lines[name] = Line()
        return line

    def ring(self, name: str) -> None:
        """Something may be there for those in a line; or in all that begin so, if the name is empty
        or ends with a "/"."""
        if name and not name.endswith("/"):
            if (line := self._lines.get(name)) is not None:
                line.ring()
            return
        for other, line in list(self._lines.items()):
            if other.startswith(name):
                line.ring()

    def log_moved(self, number: int) -> None:
        """The log has got this number."""
        for line in list(self._lines.values()):
            if line.after is not None and number > line.after:
                line.ring()
