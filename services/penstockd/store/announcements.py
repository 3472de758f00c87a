"""How processes wake each other: announcements on channels that subscribers listen to.

An announcement is sent when its transaction commits. It is a hint and may be lost, so a subscriber
also checks what it follows at intervals, and once whenever announcements may have been lost.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from penstockd.errors import DatabaseUnavailable
from penstockd.store.database import Connection, Database, translate_errors

#: The sequencer has numbered changes; the payload is the last number and its mark (see the
#: migrations).
LOG_CHANNEL = "penstock_log"
#: Roles, consumers, credentials or issuers have changed.
POLICY_CHANNEL = "penstock_policy"
#: Webhooks have changed, or deliveries are due.
WEBHOOK_CHANNEL = "penstock_webhook"
#: A process needs more of an allowance than is left; the payload is the allowance's id.
ALLOWANCE_CHANNEL = "penstock_allowance"
#: There may be work for queued calls; the payload names it (see ``feed.bells``).
BELL_CHANNEL = "penstock_bell"

#: The most announcements queued for a subscriber. Beyond that it is notified that it missed some,
#: and checks for itself.
MAX_WAITING = 1000
#: How often the listening connection is probed, and how long it may take to answer, in seconds.
CHECK_INTERVAL = 1.0
ANSWER_TIMEOUT = 5.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Announcement:
    """A message on a channel. The payload may be empty."""

    channel: str
    payload: str = ""


@dataclass(frozen=True, slots=True)
class News:
    """The result of one ``take``. ``missed``: announcements may have been lost."""

    announcements: Sequence[Announcement] = ()
    missed: bool = False

    def __bool__(self) -> bool:
        return bool(self.announcements) or self.missed


class Mailbox:
    """Announcements of some channels, queued for one subscriber. A slow subscriber delays no other.

    The first news of each mailbox is ``missed``: earlier announcements are unknown.
    """

    def __init__(self, channels: Iterable[str], forget: Callable[[Mailbox], None]) -> None:
        self.channels = frozenset(channels)
        self._forget = forget
        self._waiting: deque[Announcement] = deque()
        self._missed = True
        self._any = asyncio.Event()
        self._any.set()

    def put(self, announcement: Announcement) -> None:
        """Add an announcement if it is on a channel of this mailbox."""
        if announcement.channel not in self.channels:
            return
        if len(self._waiting) >= MAX_WAITING:
            self.miss()
            return
        self._waiting.append(announcement)
        self._any.set()

    def miss(self) -> None:
        """Discard the queue and make the subscriber check for itself."""
        self._waiting.clear()
        self._missed = True
        self._any.set()

    async def take(self, seconds: float) -> News:
        """Wait for news since the last call; returns empty news after ``seconds``."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._any.wait()
        news = News(tuple(self._waiting), self._missed)
        self._waiting.clear()
        self._missed = False
        self._any.clear()
        return news

    def close(self) -> None:
        """Stop receiving announcements."""
        self._forget(self)

    def __enter__(self) -> Mailbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Mailboxes:
    """The mailboxes of a process."""

    def __init__(self) -> None:
        self._mailboxes: set[Mailbox] = set()

    @property
    def channels(self) -> frozenset[str]:
        """All channels that somebody subscribes to."""
        return frozenset[str]().union(*(box.channels for box in self._mailboxes))

    def subscribe(self, *channels: str) -> Mailbox:
        """A new mailbox for these channels, until it is closed."""
        mailbox = Mailbox(channels, self._mailboxes.discard)
        self._mailboxes.add(mailbox)
        return mailbox

    def put(self, announcement: Announcement) -> None:
        """Deliver an announcement to all subscribers of its channel."""
        for mailbox in list(self._mailboxes):
            mailbox.put(announcement)

    def miss(self, channels: Iterable[str]) -> None:
        """Report a miss to all subscribers of any of these channels."""
        lost = frozenset(channels)
        for mailbox in list(self._mailboxes):
            if mailbox.channels & lost:
                mailbox.miss()


class Announcements(Protocol):
    """The port through which a process sends and receives announcements."""

    async def announce(self, connection: Connection, channel: str, payload: str = "") -> None:
        """Announce to all processes when the connection's transaction commits, and only then."""
        ...

    def subscribe(self, *channels: str) -> Mailbox:
        """A mailbox for what is announced on these channels."""
        ...

    async def follow(self) -> None:
        """Receive announcements until cancelled; an organ of the process runs this."""
        ...


class PostgresAnnouncements:
    """Announcements by NOTIFY, received on one connection for all subscribers of the process."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._mailboxes = Mailboxes()
        self._look = asyncio.Event()  # somebody subscribes, or the connection has ended

    async def announce(self, connection: Connection, channel: str, payload: str = "") -> None:
        """See ``Announcements``. Raises the driver's errors."""
        await connection.execute("SELECT pg_notify($1, $2)", channel, payload)

    def subscribe(self, *channels: str) -> Mailbox:
        """See ``Announcements``. The mailbox receives once ``follow`` listens to these channels."""
        self._look.set()
        return self._mailboxes.subscribe(*channels)

    async def follow(self) -> None:
        """Listen until cancelled. Raises DatabaseUnavailable when the connection is lost.

        Run it again then: all subscribers are woken once when it listens again.
        """
        connection = await self._database.connect()
        connection.add_termination_listener(lambda _: self._look.set())
        listening: frozenset[str] = frozenset()
        try:
            with translate_errors():
                while True:
                    self._look.clear()
                    listening = await self._listen(connection, listening)
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(CHECK_INTERVAL):
                            await self._look.wait()
                    if connection.is_closed():
                        raise DatabaseUnavailable("the connection for announcements is lost")
                    async with asyncio.timeout(ANSWER_TIMEOUT):
                        await connection.execute("SELECT 1")
        finally:
            connection.terminate()

    async def _listen(self, connection: Connection, listening: frozenset[str]) -> frozenset[str]:
        """Listen to all channels that have subscribers; returns the channels listened to."""
        wanted = self._mailboxes.channels
        new = wanted - listening
        for channel in sorted(new):
            async with asyncio.timeout(ANSWER_TIMEOUT):
                await connection.add_listener(channel, self._hear)
        if new:
            self._mailboxes.miss(new)
            _log.debug("announcements_heard", channels=sorted(wanted))
        return wanted | listening

    def _hear(self, _: object, __: int, channel: str, payload: object) -> None:
        self._mailboxes.put(Announcement(channel, str(payload)))
