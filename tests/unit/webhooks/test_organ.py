"""The organ ends when it is told to, whatever fails meanwhile: the keeper waits for it."""

from __future__ import annotations

import asyncio

import pytest

from harness import PATIENCE
from penstockd.errors import DatabaseUnavailable
from penstockd.webhooks.organ import Webhooks


class Failing(Webhooks):
    """Loses the database just as it is cancelled, as when the server is killed."""

    def __init__(self) -> None:
        self.began = asyncio.Event()
        self.times = 0

    async def _run(self) -> None:
        self.times += 1
        self.began.set()
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            raise ExceptionGroup("", [DatabaseUnavailable("it went away")]) from None


async def test_a_failure_at_the_end_does_not_hide_the_end() -> None:
    failing = Failing()
    task = asyncio.create_task(failing.run())
    await failing.began.wait()
    task.cancel()
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(asyncio.CancelledError):
            await task
    assert failing.times == 1
