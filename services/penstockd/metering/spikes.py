"""Rates: buckets of calls that all processes share, taken from in small portions."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from penstockd.metering.ledger import Ledger
from penstockd.policy.plans import PlanRate

#: A portion lasts about this many seconds at the full rate, and is good for so many.
PORTION, LASTS = 0.05, 1.0
#: A rate that nobody used for so many seconds is forgotten.
IDLE = 60.0


@dataclass(slots=True)
class Spike:
    """What this process has taken of the bucket of one rate of one consumer."""

    in_hand: int = 0
    #: Until when that is good, by the monotonic clock: what is not used is not hoarded.
    good_until: float = 0.0
    #: What was left in the bucket at the last look, and when the next call may come.
    level: float = 0.0
    ready_at: float = 0.0
    waiting: int = 0
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def remaining(self) -> int:
        """About how many calls may come at once."""
        return max(0, int(self.level)) + max(0, self.in_hand)


class Spikes:
    """The rates of all consumers in this process."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._known: dict[tuple[str, str], Spike] = {}

    def find(self, consumer_id: str, rate: PlanRate) -> Spike:
        """The state of a consumer's rate."""
        return self._known.setdefault((consumer_id, rate.key), Spike())

    async def take(self, consumer_id: str, rate: PlanRate) -> float:
        """Take a call; returns 0, or the seconds until one may come. Raises DatabaseUnavailable."""
        spike = self.find(consumer_id, rate)
        if self._has_some(spike):
            spike.in_hand -= 1
            return 0.0
        spike.waiting += 1
        try:
            async with spike.turn:
                if not self._has_some(spike) and (pause := spike.ready_at - time.monotonic()) > 0:
                    return pause
                if not self._has_some(spike):
                    await self._fill(spike, consumer_id, rate)
                if not self._has_some(spike):
                    return max(0.001, spike.ready_at - time.monotonic())
                spike.in_hand -= 1
                return 0.0
        finally:
            spike.waiting -= 1

    def forget_idle(self) -> None:
        """Forget rates that nobody uses."""
        now = time.monotonic()
        for key, spike in list(self._known.items()):
            if now - max(spike.good_until, spike.ready_at) > IDLE and not spike.waiting:
                del self._known[key]

    def _has_some(self, spike: Spike) -> bool:
        return spike.in_hand > 0 and time.monotonic() < spike.good_until

    async def _fill(self, spike: Spike, consumer_id: str, rate: PlanRate) -> None:
        # No more is taken than the bucket holds in calm times: a portion is no burst of its own.
        wanted = max(spike.waiting, min(int(rate.per_second * PORTION), rate.burst // 4), 1)
        given = await self._ledger.take_spike(
            consumer_id, rate.key, rate.per_second, rate.burst, wanted
        )
        now = time.monotonic()
        spike.in_hand, spike.level = given.granted, given.level
        spike.good_until, spike.ready_at = now + LASTS, now + given.pause
