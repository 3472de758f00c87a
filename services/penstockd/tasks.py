"""Work that outlives the call that began it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from penstockd import budget

T = TypeVar("T")


class Tasks:
    """Work that runs to its end even if its caller leaves: a stopping hub waits for it."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    async def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run ``work`` to its end, even if the caller is cancelled.

        A cancellation takes effect only when the work has ended and its outcome is known. An error
        of the work is raised instead of the cancellation.
        """
        task = budget.create_task(work)
        self._running.add(task)
        task.add_done_callback(self._forget)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            while not task.done():
                with suppress(asyncio.CancelledError):
                    await asyncio.wait({task})
            task.result()
            raise

    async def drain(self) -> None:
        """Wait for all running work."""
        await asyncio.gather(*self._running, return_exceptions=True)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # the caller, if still there, gets it; asyncio need not log it too


async def next_item(queue: asyncio.Queue[T], producer: asyncio.Task[None]) -> T:
    """The next item of the queue; raises the producer's error if no more items will come."""
    if not queue.empty():
        return queue.get_nowait()
    getting = asyncio.ensure_future(queue.get())
    try:
        await asyncio.wait({getting, producer}, return_when=asyncio.FIRST_COMPLETED)
        if getting.done():
            return getting.result()
    finally:
        getting.cancel()
    producer.result()
    return queue.get_nowait()
