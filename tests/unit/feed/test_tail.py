"""The tail hears where the log ends, and queries it where announcements may have been lost."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest

from announcing import FakeAnnouncements
from harness import PATIENCE
from penstockd.feed import tail as module
from penstockd.feed.tail import Tail
from penstockd.organs import end_tasks
from penstockd.store.announcements import BELL_CHANNEL, LOG_CHANNEL
from penstockd.store.cursor import Cursor
from penstockd.store.database import Database


class CountedTail(Tail):
    """A tail whose log is at ``end``. ``reads`` counts its queries."""

    def __init__(self) -> None:
        self.announcements = FakeAnnouncements()
        super().__init__(Database("postgresql://nowhere/none"), self.announcements)
        self.reads, self.end = 0, 5

    async def _read(self) -> None:
        self.hear(Cursor("e", self.end, mark=self.end.to_bytes(8, "big")))
        self.reads += 1

    def say(self, number: int) -> None:
        """Announce as the sequencer does."""
        self.announcements.say(LOG_CHANNEL, f"{number} {number.to_bytes(8, 'big').hex()}")


async def until(check: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not check():  # noqa: ASYNC110 - what it waits for sets no event
            await asyncio.sleep(0.005)


@contextlib.asynccontextmanager
async def followed(tail: CountedTail) -> AsyncIterator[None]:
    task = asyncio.create_task(tail.follow())
    # At the start, because earlier announcements are unknown.
    await until(lambda: tail.reads >= 2)
    try:
        yield
    finally:
        await end_tasks([task])


@pytest.fixture(autouse=True)
def no_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only announcements cause queries."""
    monkeypatch.setattr(module, "POLL_INTERVAL", PATIENCE)


async def test_a_number_that_is_announced_is_believed_and_not_asked_for() -> None:
    tail = CountedTail()
    async with followed(tail):
        read = tail.reads
        tail.say(7)
        assert await tail.wait(5, PATIENCE)
        assert tail.head == 7 and tail.reads == read
        tail.say(6)  # another process was slower
        tail.announcements.say(BELL_CHANNEL, "subscriptions/c/s")
        await asyncio.sleep(0)
        assert tail.head == 7


async def test_a_bell_wakes_its_line_and_lost_announcements_wake_all() -> None:
    tail = CountedTail()
    mine, other = tail.bells.line("subscriptions/c/s"), tail.bells.line("webhooks/w")
    async with followed(tail):
        rung, others, read = mine.rung, other.rung, tail.reads
        tail.announcements.say(BELL_CHANNEL, "subscriptions/c/s")
        await until(lambda: mine.rung == rung + 1)
        assert other.rung == others and tail.reads == read
        tail.end = 9
        tail.announcements.lose(LOG_CHANNEL, BELL_CHANNEL)
        await until(lambda: mine.rung == rung + 2 and other.rung == others + 1)
        await until(lambda: tail.head == 9)
        assert tail.reads == read + 1


async def test_another_mark_at_the_same_number_is_asked_for() -> None:
    tail = CountedTail()
    async with followed(tail):
        read = tail.reads
        tail.announcements.say(LOG_CHANNEL, f"5 {b'else'.hex()}")
        await until(lambda: tail.reads > read)


async def test_without_announcements_it_asks_every_so_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "POLL_INTERVAL", 0.01)
    tail = CountedTail()
    async with followed(tail):
        await until(lambda: tail.reads > 3)
        tail.end = 8
        assert await tail.wait(5, PATIENCE)
