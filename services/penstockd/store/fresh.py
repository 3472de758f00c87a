"""New records in the form that COPY BINARY takes, built by the native kernel."""

from __future__ import annotations

import struct
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

#: Decodes some of the copied rows, by index, to rows for ``WriteTransaction.upsert``.
Decode = Callable[[Sequence[int]], list[list[Any]]]

#: The columns of an entry of the change log, in the order of the kernel's entries.
ENTRY_COLUMNS = ("ordinal", "dataset", "key", "operation", "after")

_ORDINAL = 6  # its offset in an entry: after the number of columns and its own size
_PACK_ORDINAL = struct.Struct(">q").pack_into


@dataclass(slots=True)
class FreshRows:
    """Rows of a file as new records: each as a row of its table and as an entry of the change log.

    They are in file order; ``numbers`` are their row numbers in the file. The entries have
    contiguous ordinals from ``first`` on. ``decode`` recovers the values of rows that turn out not
    to be new.
    """

    first: int = 0
    keys: list[str] = field(default_factory=list)
    numbers: list[int] = field(default_factory=list)
    rows: bytearray = field(default_factory=bytearray)
    row_sizes: array[int] = field(default_factory=lambda: array("i"))
    entries: bytearray = field(default_factory=bytearray)
    entry_sizes: array[int] = field(default_factory=lambda: array("i"))
    parts: list[tuple[int, Decode]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.keys)

    def add(self, keys: list[str], rows: bytes, entries: bytes) -> None:
        """Append rows; ``source`` must follow for them."""
        self.keys += keys
        self.rows += rows
        self.entries += entries

    def source(self, numbers: Sequence[int], sizes: array[int], decode: Decode) -> None:
        """Describe the rows added last: their numbers, the size of each row and of its entry, and
        how to decode them."""
        self.numbers += numbers
        self.row_sizes += sizes[::2]
        self.entry_sizes += sizes[1::2]
        self.parts.append((len(numbers), decode))

    def extend(self, more: FreshRows) -> None:
        """Append rows that follow these."""
        if not self.keys:
            self.first = more.first
        self.keys += more.keys
        self.numbers += more.numbers
        self.rows += more.rows
        self.row_sizes += more.row_sizes
        self.entries += more.entries
        self.entry_sizes += more.entry_sizes
        self.parts += more.parts

    def decode(self, places: Sequence[int]) -> list[list[Any]]:
        """The rows at ascending ``places`` as values."""
        found: list[list[Any]] = []
        start, at = 0, 0
        for count, decode in self.parts:
            stop = at
            while stop < len(places) and places[stop] < start + count:
                stop += 1
            if stop > at:
                found += decode([place - start for place in places[at:stop]])
            start, at = start + count, stop
        return found

    def rows_at(self, places: Sequence[int]) -> bytes | bytearray:
        """The table's rows at ``places``, in that order."""
        return _choose_rows(self.rows, self.row_sizes, places)

    def entries_at(self, places: Sequence[int], ordinal: int) -> bytearray:
        """The entries at ascending ``places``, with ordinals from ``ordinal`` on."""
        if len(places) == len(self) and ordinal == self.first:
            return self.entries
        chosen = bytearray(_choose_rows(self.entries, self.entry_sizes, places))
        at = 0
        for i, place in enumerate(places, ordinal):
            _PACK_ORDINAL(chosen, at + _ORDINAL, i)
            at += self.entry_sizes[place]
        return chosen


def _choose_rows(data: bytearray, sizes: array[int], places: Sequence[int]) -> bytes | bytearray:
    if places == range(len(sizes)):
        return data
    ends = list(accumulate(sizes))
    view = memoryview(data)
    return b"".join([view[ends[i] - sizes[i] : ends[i]] for i in places])
