"""Threads that work for calls beside the event loop, shared fairly among those that pay for
them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

from penstockd.shares import Payer, Shares, ShareTerms, payer_var

T = TypeVar("T")


class SharedThreads:
    """A pool of threads. One payer's work uses at most ``most`` of them, and one more is reserved
    for others: a payer with less work finds a thread, or is next when one becomes free."""

    def __init__(self, most: int, name: str) -> None:
        """``name`` begins the names of the threads."""
        self._threads = ThreadPoolExecutor(most + 1, name)
        self._most = most
        self._shares: Shares | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def run(self, work: Callable[[], T]) -> T:
        """Run ``work`` for the current payer and return its result.

        There is no limit to the time that it waits for a thread: the call has a deadline, and waits
        only for its own consumer's work. Raises ShareExhausted if too much of that is waiting.
        """
        loop, payer = asyncio.get_running_loop(), payer_var.get()
        shares = self._shares_of(loop)
        await shares.take(payer)
        try:
            job = self._threads.submit(work)
        except BaseException:
            shares.give_back(payer)
            raise
        # The thread is occupied until the work has ended, even if the call has left.
        job.add_done_callback(lambda _: _give_back(loop, shares, payer))
        return await asyncio.wrap_future(job)

    def _shares_of(self, loop: asyncio.AbstractEventLoop) -> Shares:
        if self._shares is None or self._loop is not loop:
            terms = ShareTerms(consumer_factor=self._most, seconds=None)
            self._shares = Shares(self._most + 1, terms, what="threads")
            self._loop = loop
        return self._shares


def _give_back(loop: asyncio.AbstractEventLoop, shares: Shares, payer: Payer) -> None:
    with suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(shares.give_back, payer)
