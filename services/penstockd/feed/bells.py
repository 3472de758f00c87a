"""Bells wake the calls of this process that wait for leases or deliveries, and the streams whose
shape may have been deleted.

Each thing that only one call can take has a line. The first call of a line looks in the database
and waits; the others stand behind it. So a thousand waiting calls cost the database no more than
one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from weakref import WeakValueDictionary

from penstockd.store.announcements import BELL_CHANNEL, Announcements
from penstockd.store.database import Connection


def subscription_line(consumer_id: str, subscription_id: str) -> str:
    """The line of calls that wait for leases of a subscription."""
    return f"subscriptions/{consumer_id}/{subscription_id}"


def shapes_line(consumer_id: str) -> str:
    """The line that rings when a shape of the consumer is deleted."""
    return f"shapes/{consumer_id}"


def webhook_line(webhook_id: str) -> str:
    """The line of calls that wait to pull deliveries of a webhook."""
    return f"webhooks/{webhook_id}"


async def ring_everywhere(announcements: Announcements, connection: Connection, name: str) -> None:
    """Ring a line in all processes, once the connection's transaction is committed."""
    await announcements.announce(connection, BELL_CHANNEL, name)


class Line:
    """A line of waiting calls. ``rung`` counts rings: while it is unchanged, there is nothing
    new."""

    def __init__(self) -> None:
        self.rung = 0
        #: The line is also rung when the log passes this number.
        self.after: int | None = None
        self._moved = asyncio.Event()
        self._first = asyncio.Lock()

    def ring(self) -> None:
        """Wake the waiting calls: something may be available."""
        self.rung += 1
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    async def wait(self, rung: int, seconds: float) -> None:
        """Wait until ``rung`` differs from the given count, or the time is over."""
        if self.rung == rung and seconds > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._moved.wait()

    @asynccontextmanager
    async def turn(self, seconds: float) -> AsyncIterator[bool]:
        """Become the first in the line; False if others were first the whole time."""
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
    """The lines of one process. A line exists as long as somebody uses it."""

    def __init__(self) -> None:
        self._lines: WeakValueDictionary[str, Line] = WeakValueDictionary()

    def line(self, name: str) -> Line:
        """The line of that name."""
        line = self._lines.get(name)
        if line is None:
            line = self._lines[name] = Line()
        return line

    def ring(self, name: str) -> None:
        """Ring the line of that name: something may be available.

        A name that is empty or ends with "/" rings all lines that begin with it.
        """
        if name and not name.endswith("/"):
            if (line := self._lines.get(name)) is not None:
                line.ring()
            return
        for other, line in list(self._lines.items()):
            if other.startswith(name):
                line.ring()

    def log_moved(self, number: int) -> None:
        """Ring the lines that wait for this number of the log, which it has reached."""
        for line in list(self._lines.values()):
            if line.after is not None and number > line.after:
                line.ring()
