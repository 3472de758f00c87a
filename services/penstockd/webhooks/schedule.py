"""When a failed delivery is tried again, and what counts as now."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

#: How far a retry strays from its time, either way: many that failed together come back apart.
JITTER = 0.2
#: The longest that a receiver can ask for by Retry-After.
MAX_RETRY_AFTER = timedelta(days=1)

Clock = Callable[[], datetime]
#: A number from 0 on and below 1.
Chance = Callable[[], float]


def now() -> datetime:
    """The time by the system's clock."""
    return datetime.now(UTC)


def next_time(
    schedule: Sequence[int],
    tries: int,
    at: datetime,
    retry_after: timedelta | None = None,
    chance: Chance = random.random,
) -> datetime | None:
    """When to try again after the try of a number (from 1 on) failed at a time; None: never.

    ``retry_after`` is what the receiver asked for: it can delay a retry, not hasten it.
    """
    if tries > len(schedule):
        return None
    stray = 1 + JITTER * (2 * chance() - 1)
    wait = timedelta(seconds=schedule[tries - 1] * stray)
    if retry_after is not None:
        wait = max(wait, min(retry_after, MAX_RETRY_AFTER))
    return at + wait
