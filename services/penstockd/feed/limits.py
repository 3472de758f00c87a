"""Limits the streams of changes that a consumer holds in one process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from penstockd.errors import TooManyStreams


class Streams:
    """Counts, by consumer, the streams of one process and the calls that wait for changes.

    A stream is ended if its client takes nothing for ``stall_seconds``.
    """

    def __init__(self, *, most: int = 2000, stall_seconds: float = 20.0) -> None:
        """``most`` is the number that one consumer may hold at a time."""
        self.stall_seconds = stall_seconds
        self._most = most
        self.held: Counter[str] = Counter()

    @contextmanager
    def one_more(self, consumer_id: str, *, waits: bool = True) -> Iterator[None]:
        """Count a stream for the length of a block; calls that do not wait are not counted.

        Raises TooManyStreams.
        """
        if not waits:
            yield
            return
        if self.held[consumer_id] >= self._most:
            raise TooManyStreams(f"you hold {self._most} streams already; close some")
        self.held[consumer_id] += 1
        try:
            yield
        finally:
            self.held[consumer_id] -= 1
            if not self.held[consumer_id]:
                del self.held[consumer_id]
