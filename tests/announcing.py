"""Announcements without a database: subscribers in this process receive them at once."""

from __future__ import annotations

import asyncio

from penstockd.store.announcements import Announcement, Mailbox, Mailboxes
from penstockd.store.database import Connection


class FakeAnnouncements:
    """Implements the port of announcements. ``made`` lists the announcements in order."""

    def __init__(self) -> None:
        self.made: list[Announcement] = []
        self._mailboxes = Mailboxes()

    async def announce(self, connection: Connection, channel: str, payload: str = "") -> None:
        """Announce now; there is no transaction to wait for."""
        self.say(channel, payload)

    def subscribe(self, *channels: str) -> Mailbox:
        return self._mailboxes.subscribe(*channels)

    async def follow(self) -> None:
        """Run for ever: nothing can be lost."""
        await asyncio.get_running_loop().create_future()

    def say(self, channel: str, payload: str = "") -> None:
        """Deliver what another process would announce."""
        self.made.append(Announcement(channel, payload))
        self._mailboxes.put(self.made[-1])

    def lose(self, *channels: str) -> None:
        """Act as if the connection was lost and is back."""
        self._mailboxes.miss(channels)
