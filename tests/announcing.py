"""Announcements without a database: heard at once by whoever subscribes in this process."""

from __future__ import annotations

import asyncio

from penstockd.store.announcements import Announcement, Mailbox, Mailboxes
from penstockd.store.database import Connection


class FakeAnnouncements:
    """Stands for the port of announcements. ``made`` is what was announced, in order."""

    def __init__(self) -> None:
        self.made: list[Announcement] = []
        self._mailboxes = Mailboxes()

    async def announce(self, connection: Connection, channel: str, payload: str = "") -> None:
        """Announce now; there is no transaction to wait for."""
        self.say(channel, payload)

    def subscribe(self, *channels: str) -> Mailbox:
        return self._mailboxes.subscribe(*channels)

    async def follow(self) -> None:
        """Nothing can be lost."""
        await asyncio.get_running_loop().create_future()

    def say(self, channel: str, payload: str = "") -> None:
        """What another process would announce."""
        self.made.append(Announcement(channel, payload))
        self._mailboxes.put(self.made[-1])

    def lose(self, *channels: str) -> None:
        """As when the connection was lost and is back."""
        self._mailboxes.miss(channels)
