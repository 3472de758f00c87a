"""One lane for each endpoint, so that no endpoint delays another.

A failing lane sends one message at a time until one is accepted: a dead endpoint occupies a single
connection, however much waits for it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from penstockd.policy.snapshot import PolicySnapshot
from penstockd.webhooks.endpoints import Endpoint
from penstockd.webhooks.model import Delivery, State, WebhookKind
from penstockd.webhooks.payload import Message

#: Failures in a row after which a lane sends one message at a time.
NARROW_AFTER = 3
#: Messages claimed ahead for each one that is being sent, and the most in all.
_AHEAD = 3
_MOST_AHEAD = 192


@dataclass(frozen=True, slots=True)
class Composed:
    """A delivery with its message, made under a policy."""

    delivery: Delivery
    message: Message
    policy: PolicySnapshot


class Lane:
    """The claimed messages of an endpoint: waiting, being sent, or not settled yet."""

    def __init__(
        self,
        endpoint: Endpoint,
        send: Callable[[Lane, Composed], Coroutine[Any, Any, None]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.endpoint = endpoint
        self.failures = 0
        self.held = 0
        #: How many times the size of its records the last message had.
        self.growth = 2.0
        self._send, self._clock = send, clock
        self._waiting: deque[Composed] = deque()
        self._sending: set[asyncio.Task[None]] = set()
        self._rested = 0.0
        self._tokens, self._filled = 1.0, clock()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def open(self) -> bool:
        """Whether messages may be posted to the endpoint."""
        webhook = self.endpoint.webhook
        return webhook.state is State.ACTIVE and webhook.kind is WebhookKind.HTTP

    @property
    def width(self) -> int:
        """How many messages may be in flight at once."""
        narrow = self.failures >= NARROW_AFTER
        return 1 if narrow else self.endpoint.webhook.options.concurrency

    @property
    def room(self) -> int:
        """How many more may be claimed now."""
        rests = self._clock() < self._rested
        if not self.open or rests:
            return 0
        if self.width == 1:
            return max(0, 1 - self.held)
        room = self.width + min(_AHEAD * self.width, _MOST_AHEAD) - self.held
        rate = self.endpoint.webhook.options.rate
        return max(0, min(room, 2 * rate - self.held) if rate else room)

    @property
    def ready_in(self) -> float | None:
        """Seconds until a rest that the receiver asked for is over; None outside a rest."""
        left = self._rested - self._clock()
        return left if self.open and left > 0 else None

    def take(self, composed: Composed) -> None:
        """Send a message as soon as there is a place for it."""
        self._waiting.append(composed)
        self._pump()

    def rest(self, seconds: float) -> None:
        """Claim nothing for a while."""
        self._rested = max(self._rested, self._clock() + seconds)

    def settled(self, delivered: bool | None) -> None:
        """Note that a claimed message is settled: delivered, failed, or returned unsent (None)."""
        self.held -= 1
        if delivered is not None:
            self.failures = 0 if delivered else self.failures + 1

    def stop(self) -> None:
        """Cancel everything that has not ended."""
        if self._timer is not None:
            self._timer.cancel()
        for task in self._sending:
            task.cancel()

    def _pump(self) -> None:
        while self._waiting and len(self._sending) < self.width and self._may_send():
            task = asyncio.create_task(self._send(self, self._waiting.popleft()))
            self._sending.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._sending.discard(task)
        if not task.cancelled():
            task.result()
            self._pump()

    def _may_send(self) -> bool:
        """Take a token of the rate limit; if there is none, try again when there is."""
        rate = self.endpoint.webhook.options.rate
        if not rate:
            return True
        now = self._clock()
        self._tokens = min(max(1.0, rate / 10), self._tokens + (now - self._filled) * rate)
        self._filled = now
        if self._tokens >= 1:
            self._tokens -= 1
            return True
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later((1 - self._tokens) / rate, self._refilled)
        return False

    def _refilled(self) -> None:
        self._timer = None
        self._pump()
