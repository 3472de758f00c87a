"""The end of the log, as one process hears of it."""

from __future__ import annotations

import asyncio
import contextlib

import asyncpg
import structlog

from penstockd.errors import DatabaseUnavailable, Refused
from penstockd.feed.bells import CHANNEL as BELL
from penstockd.feed.bells import Bells
from penstockd.store.database import Connection, Database, translated

#: Where the sequencer announces new numbers (see the migrations).
CHANNEL = "penstock_log"
#: How often the end is looked for when no announcement comes, in seconds.
POLL_INTERVAL = 1.0
#: How long the database may take to tell it, in seconds.
READ_TIMEOUT = 5.0

_log = structlog.get_logger(__name__)


class Tail:
    """Knows the newest number and the log's epoch, and wakes those who wait for more, or for what
    else is announced.

    It listens on a connection of its own. Announcements are hints: what counts is what the log
    says, which is asked at least every POLL_INTERVAL.
    """

    def __init__(self, database: Database) -> None:
        self.bells = Bells()
        self.head = 0
        self.epoch = ""
        self._database = database
        self._connection: Connection | None = None
        self._announced = asyncio.Event()
        self._moved = asyncio.Event()

    async def follow(self) -> None:
        """Keep up with the log until cancelled."""
        try:
            while True:
                try:
                    await self._read()
                except (DatabaseUnavailable, Refused) as exc:
                    _log.warning("log_unheard", error=str(exc))
                    self._drop()
                except Exception:
                    # Whatever it is, giving up would be worse: streams would wait for ever.
                    _log.exception("log_unheard")
                    self._drop()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(POLL_INTERVAL):
                        await self._announced.wait()
                self._announced.clear()
        finally:
            self._drop()

    async def wait(self, after: int, seconds: float) -> bool:
        """Wait until there is a number greater than ``after``; False if the time is over before."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.head <= after:
                    await self._moved.wait()
        return self.head > after

    def close(self) -> None:
        """Drop the connection."""
        self._drop()

    async def _read(self) -> None:
        with translated():
            async with asyncio.timeout(READ_TIMEOUT):
                if self._connection is None or self._connection.is_closed():
                    self._connection = await self._database.connect()
                    await self._connection.add_listener(CHANNEL, self._on_announcement)
                    await self._connection.add_listener(BELL, self._on_bell)
                    self.bells.ring("")  # for what was announced to nobody
                row = await self._connection.fetchrow("SELECT last_number, epoch FROM hub.log_head")
        assert row is not None, "the migrations have put one row there"
        self.epoch = row[1]
        self.hear(row[0])

    def _on_announcement(self, *message: object) -> None:
        """The number is in the announcement, and it is committed: no need to ask."""
        try:
            self.hear(int(str(message[-1])))
        except ValueError:
            self._announced.set()

    def _on_bell(self, *message: object) -> None:
        self.bells.ring(str(message[-1]))

    def hear(self, number: int) -> None:
        """The log has this number: wake those who wait for it."""
        if number > self.head:
            self.head = number
            moved, self._moved = self._moved, asyncio.Event()
            moved.set()
            self.bells.log_moved(number)

    def _drop(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(asyncpg.InterfaceError):
                self._connection.terminate()
            self._connection = None
