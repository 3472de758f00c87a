"""Imports: bytes of a format -> batches of canonical rows. What all readers share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from penstockd.catalog.model import Dataset, Field
from penstockd.formats.errors import FormatError
from penstockd.formats.kernel import Kernel
from penstockd.store.fresh import FreshRows

ROW_LIMIT = 1 << 20  # bytes of one row in the file
COLUMN_LIMIT = 10_000
_PIECE = 128 << 10  # bytes that are parsed at once, if a row is no longer
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be loaded: its number from 1, the field's path or "", and the reason."""

    row: int
    field: str
    reason: str


@dataclass(slots=True)
class Batch:
    """Some rows in file order: values as in ``Reader.fields``, each with its number from 1.

    Bad rows are not among ``rows``, nor are those that are ``fresh``; a batch may hold nothing
    else.
    """

    numbers: Sequence[int]
    rows: list[list[Any]]
    bad: list[BadRow] = field(default_factory=list)
    fresh: FreshRows | None = None


class Reader(ABC):
    """Reads one file: ``feed(chunk)`` …, then ``close()``; both are generators of batches.

    ``fields`` are those that rows hold values for, in that order: of the writable fields that were
    offered, all (JSON) or those that the header names (CSV; known once the first batch is there).
    Output-only fields may stand in the file and are passed over.

    Both raise FormatError for what makes the rest unreadable: broken quoting or brackets, a header
    that does not fit, a row above 1 MiB, a file that ends too early. Memory stays within a few MiB.
    """

    def __init__(self, dataset: Dataset, fields: Sequence[Field]) -> None:
        self.dataset = dataset
        self.offered = tuple(fields)
        self.fields: tuple[Field, ...] = tuple(f for f in fields if not f.output_only)
        self.rows = 0  # good or bad, so far
        self._kernel = Kernel()
        self._pending = bytearray()
        self._wanted = _PIECE
        self._begun = False
        self._written: tuple[datetime, int] | None = None

    def write_as(self, time: datetime, revision: int) -> None:
        """Say what new records are written with, before the first ``feed``.

        A reader that can then gives good rows as ``Batch.fresh``, those it is sure of; their
        entries of the log are numbered from 0 on.
        """
        self._written = time, revision

    def feed(self, chunk: bytes | bytearray | memoryview) -> Iterator[Batch]:
        """The rows that the next bytes of the file complete."""
        view = memoryview(chunk)
        for at in range(0, len(view), _PIECE):
            self._pending += view[at : at + _PIECE]
            if len(self._pending) >= self._wanted:
                yield from self._advance(final=False)

    def close(self) -> Iterator[Batch]:
        """The last rows, once all bytes were fed."""
        yield from self._advance(final=True)

    def _advance(self, final: bool) -> Iterator[Batch]:
        if not self._begun:
            self._begun = True
            if self._pending.startswith(_BOM):
                del self._pending[: len(_BOM)]
        consumed, batch = self._take(bytes(self._pending), final)
        del self._pending[:consumed]
        if len(self._pending) > ROW_LIMIT:
            raise FormatError("is longer than 1 MiB", row=self.rows + 1)
        # Bytes of an unfinished row are looked at again, so that looking must pay.
        self._wanted = max(_PIECE, 2 * len(self._pending))
        if batch is not None and (batch.rows or batch.bad or batch.fresh):
            yield batch

    @abstractmethod
    def _take(self, data: bytes, final: bool) -> tuple[int, Batch | None]:
        """Parses the whole rows at the start of ``data``: how many bytes they are, and them."""
