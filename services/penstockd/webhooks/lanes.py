"""One lane for each endpoint, so that no endpoint delays another.

A failing lane sends one message at a time until one is accepted: a dead endpoint occupies a single
connection, however many messages wait for it.

Messages that are claimed but not sent yet share the memory. A receiver that reads nothing keeps its
messages there until its attempts time out. Two rules keep one from using up the memory of all. A
consumer's messages may take a quarter of what those of other consumers leave, so a consumer that
comes later finds room at once. One of a consumer's endpoints may take half of what its other
endpoints leave. A consumer or endpoint that holds nothing may always take one message, whatever its
size, as long as the whole is not full.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from penstockd.webhooks.endpoints import Endpoint
from penstockd.webhooks.messages import Composed
from penstockd.webhooks.model import State, WebhookKind
from penstockd.webhooks.queue import DueDelivery

#: Failures in a row after which a lane sends one message at a time.
NARROW_AFTER = 3
#: Messages claimed ahead for each one that is being sent, and the most in all.
_AHEAD = 3
_MOST_AHEAD = 192

#: The most bytes of claimed but unsent bodies: of all endpoints together, and of one.
HELD_BYTES = 32 * 1024 * 1024
LANE_BYTES = 4 * 1024 * 1024
#: The expected bytes of a message besides its records.
MESSAGE_OVERHEAD = 512

#: A consumer takes one part of CONSUMER_PARTS of what others leave, an endpoint one of LANE_PARTS.
CONSUMER_PARTS, LANE_PARTS = 4, 2


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
        #: The size of the last message in multiples of its records.
        self.growth = 2.0
        self._send, self._clock = send, clock
        self._waiting: deque[Composed] = deque()
        self._sending: set[asyncio.Task[None]] = set()
        self._rested = self._spent_until = 0.0
        self._spent_under: object = None
        self._tokens, self._filled = 1.0, clock()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def open(self) -> bool:
        """Whether messages may be posted to the endpoint."""
        webhook = self.endpoint.webhook
        return webhook.state is State.ACTIVE and webhook.kind is WebhookKind.HTTP

    @property
    def width(self) -> int:
        """The most messages that may be sent at the same time."""
        narrow = self.failures >= NARROW_AFTER
        return 1 if narrow else self.endpoint.webhook.options.concurrency

    @property
    def room(self) -> int:
        """How many more may be claimed now."""
        if not self.open or self._clock() < max(self._rested, self._spent_until):
            return 0
        if self.width == 1:
            return max(0, 1 - self.held)
        room = self.width + min(_AHEAD * self.width, _MOST_AHEAD) - self.held
        rate = self.endpoint.webhook.options.rate
        return max(0, min(room, 2 * rate - self.held) if rate else room)

    @property
    def ready_in(self) -> float | None:
        """Seconds until a pause is over, the receiver's or that of a quota; None outside one."""
        left = max(self._rested, self._spent_until) - self._clock()
        return left if self.open and left > 0 else None

    def take(self, composed: Composed) -> None:
        """Send a message as soon as there is a place for it."""
        self._waiting.append(composed)
        self._pump()

    def rest(self, seconds: float) -> None:
        """Claim nothing for a while."""
        self._rested = max(self._rested, self._clock() + seconds)

    def rest_under(self, policy: object, seconds: float) -> None:
        """Claim nothing for a while, as long as this policy applies."""
        self._spent_under, self._spent_until = policy, self._clock() + seconds

    def apply(self, policy: object) -> None:
        """Note which policy applies: another one ends a pause under the last."""
        if self._spent_under is not policy:
            self._spent_under, self._spent_until = None, 0.0

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
            task.add_done_callback(self._end_sending)

    def _end_sending(self, task: asyncio.Task[None]) -> None:
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


class Holding:
    """The bytes of unsent messages by consumer and endpoint, and whether more may be held."""

    def __init__(self) -> None:
        self._consumers: Counter[str] = Counter()
        self._lanes: Counter[str] = Counter()
        self._total = 0

    def copy(self) -> Holding:
        """A copy, to try out what fits."""
        other = Holding()
        other._consumers, other._lanes = self._consumers.copy(), self._lanes.copy()
        other._total = self._total
        return other

    @property
    def full(self) -> bool:
        """Whether nobody may hold more."""
        return self._total >= HELD_BYTES

    def permits(self, consumer: str, webhook_id: str, size: int) -> bool:
        """Whether an endpoint of a consumer may hold an additional message of ``size`` bytes."""
        if self._total and self._total + size > HELD_BYTES:
            return False
        held, own = self._consumers[consumer], self._lanes[webhook_id]
        share = (HELD_BYTES - (self._total - held)) // CONSUMER_PARTS
        if held and held + size > share:
            return False
        room = min(LANE_BYTES, (share - (held - own)) // LANE_PARTS)
        return not own or own + size <= room

    def hold(self, consumer: str, webhook_id: str, size: int) -> None:
        """Count a message."""
        self._total += size
        self._consumers[consumer] += size
        self._lanes[webhook_id] += size

    def release(self, consumer: str, webhook_id: str, size: int) -> None:
        """Stop counting a message."""
        self._total -= size
        for counter, name in ((self._consumers, consumer), (self._lanes, webhook_id)):
            counter[name] -= size
            if counter[name] <= 0:
                del counter[name]


def choose_within_bytes(due: Iterable[DueDelivery], most: int) -> list[str]:
    """The ids of the first deliveries whose records take at most ``most`` bytes, but at least
    one."""
    chosen: list[str] = []
    size = 0
    for delivery in due:
        size += delivery.stored_bytes + MESSAGE_OVERHEAD
        if chosen and size > most:
            break
        chosen.append(delivery.delivery_id)
    return chosen
