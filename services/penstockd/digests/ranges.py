"""Ranges of keys with their digests, sent by a caller or computed from rows."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from penstockd.native.digest import DIGEST_BYTES
from penstockd.native.digest_kernel import Digested

#: The seconds that one call may read rows; another call reads the rest.
PATIENCE = 10.0


@dataclass(frozen=True, slots=True)
class Range:
    """The records from key ``start`` up to, not including, ``end``; "" is no bound.

    ``records`` maps keys to digests, in order; None if only the digest of the range is known.
    """

    start: str
    end: str
    count: int
    sha256: bytes
    records: Mapping[str, bytes] | None = None


class Enough(Exception):
    """A read ends early, before the record with this key."""

    def __init__(self, next_key: str) -> None:
        super().__init__(next_key)
        self.next_key = next_key


@dataclass(slots=True)
class Patience:
    """The time that a call has left for its rows."""

    deadline: float = field(default_factory=lambda: time.monotonic() + PATIENCE)

    @property
    def over(self) -> bool:
        """Whether the time is up."""
        return time.monotonic() >= self.deadline


def key_at(done: Digested, index: int) -> bytes:
    """The key of a row."""
    return done.keys[done.ends[index - 1] if index else 0 : done.ends[index]]


def digest_at(done: Digested, index: int) -> bytes:
    """The digest of a row."""
    return done.digests[DIGEST_BYTES * index : DIGEST_BYTES * (index + 1)]


def rows_before(done: Digested, key: str, low: int) -> int:
    """The number of rows before a key, at least ``low``; "" is no bound."""
    high, wanted = done.rows, key.encode()
    if not key or key_at(done, high - 1) < wanted:
        return high
    while low < high:
        middle = (low + high) // 2
        if key_at(done, middle) < wanted:
            low = middle + 1
        else:
            high = middle
    return low


class Tally:
    """The rows so far of the range that is being read."""

    __slots__ = ("_hash", "count", "start")

    def __init__(self, start: str) -> None:
        self.start, self.count = start, 0
        self._hash = hashlib.sha256()

    def add(self, done: Digested, first: int, last: int) -> None:
        """Add the rows from ``first`` up to, not including, ``last``."""
        view = memoryview(done.digests)
        self._hash.update(view[DIGEST_BYTES * first : DIGEST_BYTES * last])
        self.count += last - first

    def range(self, end: str) -> Range:
        """The range with its digest; it ends before a key."""
        return Range(self.start, end, self.count, self._hash.digest())
