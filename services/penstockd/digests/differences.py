"""Compares a caller's ranges with the hub's rows: what it must write, delete and compare next."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from penstockd.digests.ranges import (
    Enough,
    Patience,
    Range,
    Tally,
    digest_at,
    key_at,
    rows_before,
)
from penstockd.native.digest_kernel import Digested

#: Rows in the smallest ranges that a differing one is cut into.
LEAF_ROWS = 32
#: After this many ranges the next ones are twice as large, and so on, to keep their number small.
LEAVES = 256
#: The most records to write in one reply, and the most bytes of smaller ranges.
MOST_UPSERTS, MOST_DIFFERING_BYTES = 4096, 1 << 20
#: The approximate bytes of a range in a reply, without its keys.
_RANGE_BYTES = 96


class Differences:
    """The differences, in key order. Rows are taken run by run (see ``group_ranges``)."""

    def __init__(self) -> None:
        self.upserts: list[str] = []
        self.deletes: list[str] = []
        self.differing: list[Range] = []
        self.rows = 0
        self._patience = Patience()
        self._size = 0
        self._waiting: list[Range] = []
        self._open: ListedRange | DigestedRange | None = None

    @property
    def full(self) -> bool:
        """Whether the reply must end before the next row or range."""
        return (
            self._patience.over
            or len(self.upserts) >= MOST_UPSERTS
            or self._size >= MOST_DIFFERING_BYTES
        )

    def begin(self, run: Sequence[Range]) -> None:
        """Announce that the rows of these ranges come next."""
        self._waiting = list(reversed(run))
        self._next()

    def take(self, done: Digested) -> None:
        """Compare the next rows. Raises Enough when the reply is full."""
        at = 0
        while at < done.rows:
            assert self._open is not None, "no row lies outside the run"
            last = rows_before(done, self._open.range.end, at)
            if last == at:
                self._close()
                continue
            if self.full and self.rows:
                raise Enough(key_at(done, at).decode())
            # A bounded number at once, so that the reply does not exceed its limit by much.
            last = min(last, at + self._open.at_once)
            self._open.add(done, at, last)
            self.rows += last - at
            at = last

    def end(self) -> None:
        """Finish the run, whose rows have all been taken."""
        while self._open is not None:
            self._close()

    def cut(self, key: str) -> None:
        """End the reply before this key, which is the key in Enough."""
        if self._open is not None and self._open.range.start < key:
            self._gather(self._open.cut(key))
        self._open = None

    def _close(self) -> None:
        assert self._open is not None
        self._gather(self._open.end())
        self._next()

    def _gather(self, found: tuple[Iterable[str], Iterable[str], Iterable[Range]]) -> None:
        upserts, deletes, differing = found
        self.upserts += upserts
        self.deletes += deletes
        for range in differing:
            self.differing.append(range)
            self._size += _RANGE_BYTES + len(range.start.encode()) + len(range.end.encode())

    def _next(self) -> None:
        if not self._waiting:
            self._open = None
            return
        range = self._waiting.pop()
        self._open = (
            DigestedRange(range) if range.records is None else ListedRange(range, self.upserts)
        )


def group_ranges(ranges: Sequence[Range]) -> list[list[Range]]:
    """Group adjacent ranges, so that one read serves all of a group."""
    found: list[list[Range]] = []
    for range in ranges:
        if found and found[-1][-1].end == range.start:
            found[-1].append(range)
        else:
            found.append([range])
    return found


class ListedRange:
    """A range for which the caller has sent the digest of each record."""

    at_once = 1024

    def __init__(self, range: Range, upserts: list[str]) -> None:
        assert range.records is not None
        self.range = range
        self._left = dict(range.records)
        self._upserts = upserts

    def add(self, done: Digested, first: int, last: int) -> None:
        """Compare the hub's records from ``first`` up to ``last``."""
        for i in range(first, last):
            key = key_at(done, i).decode()
            if self._left.pop(key, None) != digest_at(done, i):
                self._upserts.append(key)

    def end(self) -> tuple[Iterable[str], Iterable[str], Iterable[Range]]:
        """Keys to write, keys to delete and ranges to compare, at the end of the range."""
        return (), self._left, ()

    def cut(self, key: str) -> tuple[Iterable[str], Iterable[str], Iterable[Range]]:
        """The same for the part before ``key``, where the comparison stops."""
        return (), [k for k in self._left if k < key], ()


class DigestedRange:
    """A range for which the caller has sent one digest."""

    at_once = 1 << 20

    def __init__(self, range: Range) -> None:
        self.range = range
        self._whole = Tally(range.start)
        self._leaf = Tally(range.start)
        self._leaves: list[Range] = []
        self._size = LEAF_ROWS

    def add(self, done: Digested, first: int, last: int) -> None:
        """Count the hub's records from ``first`` up to ``last``."""
        self._whole.add(done, first, last)
        while first < last:
            if self._leaf.count == self._size:
                key = key_at(done, first).decode()
                self._leaves.append(self._leaf.range(key))
                self._leaf = Tally(key)
                if not len(self._leaves) % LEAVES:
                    self._size *= 2
            next_ = min(last, first + self._size - self._leaf.count)
            self._leaf.add(done, first, next_)
            first = next_

    def end(self) -> tuple[Iterable[str], Iterable[str], Iterable[Range]]:
        """Keys to write, keys to delete and ranges to compare, at the end of the range."""
        found = self._whole.range(self.range.end)
        if found.sha256 == self.range.sha256:
            return (), (), ()
        return (), (), [*self._leaves, self._leaf.range(self.range.end)]

    def cut(self, key: str) -> tuple[Iterable[str], Iterable[str], Iterable[Range]]:
        """The same for the part before ``key``, where the comparison stops."""
        # Whether the whole range differs is unknown, so the caller compares its parts.
        return (), (), [*self._leaves, self._leaf.range(key)]
