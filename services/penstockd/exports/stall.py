"""Ends streams whose client takes no data for a long time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from penstockd.errors import ClientStalled
from penstockd.policy.standing import INTERVAL


class StallTimer:
    """Cancels a send that blocks too long, or whose caller has lost access.

    A timer checks now and then, so that a send that does not wait costs nothing.
    """

    def __init__(self, check: Callable[[], None], stall_seconds: float) -> None:
        """While a send waits, ``check`` is called; an error that it raises ends the send."""
        self.blocked = False  #: whether the latest send has waited in vain for a while
        self._check, self._stall = check, stall_seconds
        self._period = min(INTERVAL, stall_seconds)
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._sender: asyncio.Task[None] | None = None  # while it waits
        self._since = 0.0
        self._error: Exception | None = None

    async def wait(self, sending: Awaitable[None]) -> None:
        """Wait for a send. Raises ClientStalled, and what ``check`` raises."""
        self._since, self._sender = self._loop.time(), asyncio.current_task()
        if self._timer is None:
            self._timer = self._loop.call_at(self._since + self._period, self._look)
        try:
            await sending
            self.blocked = False
        except asyncio.CancelledError:
            assert self._sender is not None
            if self._error is None or self._sender.uncancel():
                raise  # the caller was cancelled
            raise self._error from None
        finally:
            self._sender = None

    def _look(self) -> None:
        now, self._timer = self._loop.time(), None
        if self._sender is None:
            return
        then = self._since + self._period
        if now >= then:
            self.blocked = True
            try:
                self._check()
                if now >= self._since + self._stall:
                    raise ClientStalled(f"the client took no data for {self._stall:g} s")
            except Exception as exc:  # raised again in ``wait``
                self._error = exc
                self._sender.cancel()
                return
            then = now + min(self._period, self._since + self._stall - now)
        self._timer = self._loop.call_at(then, self._look)
