"""Shares of the memory for messages that are claimed but not sent yet.

A receiver that takes nothing keeps its messages in memory until its attempts time out. Two rules
keep one from using up the memory of all. A consumer's messages may take a quarter of what those
of other consumers leave, so a consumer that comes later finds room at once. One of a consumer's
endpoints may take half of what its other endpoints leave. A consumer or endpoint that holds nothing
may always take one message, whatever its size, as long as the whole is not full.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

#: Bytes of claimed but unsent bodies: of all endpoints together, and of one.
HELD_BYTES = 32 * 1024 * 1024
LANE_BYTES = 4 * 1024 * 1024
#: What a message is expected to take besides its records.
MESSAGE_OVERHEAD = 512

#: A consumer takes one part of CONSUMER_PARTS of what others leave, an endpoint one of LANE_PARTS.
CONSUMER_PARTS, LANE_PARTS = 4, 2


class DueDelivery(NamedTuple):
    """A delivery that could be claimed. ``stored_bytes`` is the size of its records."""

    delivery_id: str
    webhook_id: str
    stored_bytes: int


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
        """Whether an endpoint of a consumer may hold a message of ``size`` bytes besides."""
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
        """Count a message no longer."""
        self._total -= size
        for counter, name in ((self._consumers, consumer), (self._lanes, webhook_id)):
            counter[name] -= size
            if counter[name] <= 0:
                del counter[name]


def choose_within_bytes(due: Iterable[DueDelivery], most: int) -> list[str]:
    """The ids of the first deliveries whose records take ``most`` bytes, and at least of one."""
    chosen: list[str] = []
    size = 0
    for delivery in due:
        size += delivery.stored_bytes + MESSAGE_OVERHEAD
        if chosen and size > most:
            break
        chosen.append(delivery.delivery_id)
    return chosen
