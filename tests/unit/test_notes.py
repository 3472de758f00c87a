"""Notes are written as soon as there are any, not more often than at intervals, and not lost."""

from __future__ import annotations

import asyncio

import pytest
import structlog

from harness import PATIENCE
from penstockd.errors import DatabaseUnavailable
from penstockd.notes import Notes


class Numbers(Notes):
    """Numbers that are written to a list, while the database is there."""

    lost = "numbers_not_written"

    def __init__(self) -> None:
        super().__init__()
        self.noted: list[int] = []
        self.written: list[int] = []
        self.writes = asyncio.Event()
        self.down = False

    def note(self, number: int) -> None:
        self.noted.append(number)
        self._note_any()

    async def _write(self) -> None:
        if self.down:
            self._note_any()
            raise DatabaseUnavailable("gone")
        self.written += self.noted
        self.noted.clear()
        self.writes.set()


async def test_what_is_noted_is_written_at_once_and_then_at_intervals() -> None:
    numbers = Numbers()
    following = asyncio.create_task(numbers.follow(interval=PATIENCE))
    numbers.note(1)
    async with asyncio.timeout(PATIENCE):
        await numbers.writes.wait()
    assert numbers.written == [1]
    numbers.note(2)
    for _ in range(10):  # turns of the loop, in which it would be written
        await asyncio.sleep(0)
    assert numbers.written == [1], "the interval is not over"
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    await numbers.close()
    assert numbers.written == [1, 2]


async def test_notes_that_cannot_be_written_are_kept() -> None:
    numbers = Numbers()
    numbers.note(1)
    numbers.down = True
    with pytest.raises(DatabaseUnavailable):
        await numbers.follow()
    with structlog.testing.capture_logs() as logged:
        await numbers.close()
    assert [line["event"] for line in logged] == ["numbers_not_written"]
    numbers.down = False
    following = asyncio.create_task(numbers.follow())
    async with asyncio.timeout(PATIENCE):
        await numbers.writes.wait()
    following.cancel()
    assert numbers.written == [1]
