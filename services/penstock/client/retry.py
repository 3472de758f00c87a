"""When a failed call is repeated."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Backoff:
    """``attempts`` calls at most, with pauses in seconds that double from ``first`` to ``most``.

    Each pause is shortened by up to half at random, so that clients that failed together do
    not come back together.
    """

    attempts: int = 6
    first: float = 0.1
    most: float = 2.0

    def pauses(self) -> Iterator[float | None]:
        """The pause after each attempt, None after the last."""
        pause = self.first
        for _ in range(self.attempts - 1):
            yield pause * random.uniform(0.5, 1.0)
            pause = min(self.most, pause * 2)
        yield None


#: The policy of every call: some 2.5 s in all, enough for a worker that died to come back.
BACKOFF = Backoff()
