"""The end of the log, as one process knows it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace

import asyncpg
import structlog

from penstockd.feed.bells import Bells
from penstockd.store.announcements import BELL_CHANNEL, LOG_CHANNEL, Announcements, Mailbox
from penstockd.store.cursor import Cursor, newest_cursor
from penstockd.store.database import Connection, Database, translate_errors
from penstockd.store.epochs import notice_epoch
from penstockd.store.log import LOG, Log

#: How often to read the end of the log without an announcement, in seconds.
POLL_INTERVAL = 1.0
#: How long the database may take to answer, in seconds.
READ_TIMEOUT = 5.0
#: The most announced places that are collected before the log is read to check them.
MAX_HEARD = 1000
#: The log, the epochs, and the epochs of those ends of transactions that the log lacks or has with
#: other marks. Ends that it has pruned cannot be checked.
_CHECK = f"""
SELECT {LOG}, hub.epoch_chain(), ARRAY(
    SELECT p.number FROM unnest($1::bigint[], $2::bytea[]) AS p (number, mark)
    LEFT JOIN hub.log_transaction AS t ON t.last_number = p.number
    WHERE p.number > h.last_number
    OR p.number = h.oldest_number AND p.mark <> h.oldest_mark
    OR p.number > h.oldest_number AND t.mark IS DISTINCT FROM p.mark)
FROM (SELECT {LOG} FROM hub.log_head) AS h
"""

_log = structlog.get_logger(__name__)


class Tail:
    """Knows where the log ends, and wakes calls that wait for more of it, or for a bell.

    Announcements are hints. The log itself decides; it is read at least every POLL_INTERVAL, on a
    separate connection. Each reading checks that the log still has all places announced since the
    last one: if not, it has gone back in time (see ``store.cursor``), and ``on_return`` is called.
    """

    def __init__(
        self,
        database: Database,
        announcements: Announcements,
        on_return: Callable[[], None] = lambda: None,
    ) -> None:
        self.bells = Bells()
        self.head = 0
        self.newest: Cursor | None = None  #: None until the log was read
        self._database, self._on_return = database, on_return
        self._heard: dict[int, bytes] = {}  # places since the last read: number -> mark
        self._connection: Connection | None = None
        self._announcements = announcements
        self._mailbox: Mailbox | None = None  # while the log is followed
        self._moved = asyncio.Event()

    async def follow(self) -> None:
        """Follow the log until cancelled. Raises DatabaseUnavailable; run it again then."""
        try:
            with self._announcements.subscribe(LOG_CHANNEL, BELL_CHANNEL) as self._mailbox:
                while True:
                    await self._read()
                    await self._hear_announcements(self._mailbox)
        finally:
            self._mailbox = None
            self._drop()

    async def wait(self, after: int, seconds: float) -> bool:
        """Wait for a number greater than ``after``; False if the time is over first."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.head <= after:
                    await self._moved.wait()
        return self.head > after

    def close(self) -> None:
        """Drop the connection."""
        self._drop()

    async def _read(self) -> None:
        with translate_errors():
            async with asyncio.timeout(READ_TIMEOUT):
                if self._connection is None or self._connection.is_closed():
                    self._connection = await self._database.connect()
                heard = dict(self._heard)
                if self.newest is not None:
                    heard[self.newest.number] = self.newest.mark
                row = await self._connection.fetchrow(
                    _CHECK, list(heard), list(heard.values()), timeout=READ_TIMEOUT
                )
        assert row is not None, "the migrations have put one row there"
        *columns, epochs, gone = row
        newest = newest_cursor(Log(*columns))
        for number, mark in heard.items():
            if self._heard.get(number) == mark:
                del self._heard[number]
        memory = self._database.memory
        foreign = self.newest is not None and self.newest.epoch != newest.epoch
        returned = bool(gone) or foreign or memory.misses_epoch(epochs)
        if returned:
            _log.error("log_gone_back", newest=newest.number, known=max(gone, default=0))
            self.newest, self.head, self._heard = newest, newest.number, {}
            self._ask()
            self.bells.ring("")
            with translate_errors():
                await notice_epoch(self._connection, memory)
            self._on_return()
        self.hear(newest)
        if self.newest == newest and not returned:  # nothing was announced meanwhile
            memory.confirm(newest.number, newest.mark, epochs)

    async def _hear_announcements(self, mailbox: Mailbox) -> None:
        """Process announcements until the log is to be read."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + POLL_INTERVAL
        while (left := deadline - clock()) > 0:
            news = await mailbox.take(left)
            if news.missed:
                self.bells.ring("")
                return
            for announcement in news.announcements:
                if announcement.channel == BELL_CHANNEL:
                    self.bells.ring(announcement.payload)
                else:
                    self._hear_number(announcement.payload)

    def _ask(self) -> None:
        """Have the log read now, and drop waiting announcements: they may no longer be true."""
        if self._mailbox is not None:
            self._mailbox.miss()

    def _hear_number(self, payload: str) -> None:
        """Take a committed number and its mark from an announcement: no need to read the log."""
        number, _, mark = payload.partition(" ")
        if self.newest is None or not mark:
            self._ask()
        else:
            self.hear(replace(self.newest, number=int(number), mark=bytes.fromhex(mark)))

    def hear(self, newest: Cursor) -> None:
        """Note that the log reaches this place, and wake those that wait for it."""
        known = self.newest
        if known is not None and newest.number <= known.number:
            if newest.number == known.number and newest != known:
                self._ask()  # one of the two is wrong
            return
        self.newest, self.head = newest, newest.number
        self._heard[newest.number] = newest.mark
        self._database.memory.hear(newest.number, newest.mark)
        if len(self._heard) > MAX_HEARD:
            self._ask()
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()
        self.bells.log_moved(newest.number)

    def _drop(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(asyncpg.InterfaceError):
                self._connection.terminate()
            self._connection = None
