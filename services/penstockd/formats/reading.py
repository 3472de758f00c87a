"""Imports: bytes of a format -> batches of canonical rows. The base of all readers."""

from __future__ import annotations

import codecs
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson

from penstockd.catalog.model import Dataset, Field
from penstockd.formats.compression import Unpacker
from penstockd.formats.options import FROM_FILE, ReadOptions
from penstockd.native.errors import FormatError
from penstockd.native.kernel import Kernel
from penstockd.spools import SpoolPlace
from penstockd.store.fresh import FreshRows

ROW_LIMIT = 1 << 20  # bytes of one row in the file
COLUMN_LIMIT = 10_000
PIECE_BYTES = 128 << 10  # bytes that are parsed at once, unless a row is longer
_BOM = b"\xef\xbb\xbf"
#: Python's decoder error for UTF-16 that ends within a character.
_ENDS_EARLY = ("truncated data", "unexpected end of data")
_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be loaded: its number from 1, the field's path or "", and the reason.

    ``key`` is the record's, if it could be read.
    """

    row: int
    field: str
    reason: str
    key: str = ""


@dataclass(slots=True)
class RowBatch:
    """Some rows in file order: values in the order of ``Reader.fields``, and numbers from 1.

    ``rows`` excludes ``bad`` and ``fresh`` rows; a batch may hold only those.
    """

    numbers: Sequence[int]
    rows: list[list[Any]]
    bad: list[BadRow] = field(default_factory=list)
    fresh: FreshRows | None = None


class Reader(ABC):
    """Reads one file: ``feed(chunk)`` …, then ``finish()``.

    ``fields`` are those that rows have values for, in that order: all writable fields that were
    offered (JSON), or those that the header names (CSV; known once the first batch is returned).
    Output-only fields may occur in the file and are skipped. Names that no field has are refused,
    unless ``options`` says to ignore them: ``leniency.unknown`` then counts their values.

    A compressed file is decompressed on the way; see ``compression.Unpacker``.

    All raise FormatError for a fault that makes the rest unreadable: broken quoting or brackets, a
    header that does not fit, a row above 1 MiB, a file that ends too early. Memory stays within a
    few MiB.
    """

    #: Whether files name no encoding: they are in UTF-8, or in UTF-16 if they begin with its mark.
    names_no_encoding = True

    def __init__(
        self, dataset: Dataset, fields: Sequence[Field], options: ReadOptions = FROM_FILE
    ) -> None:
        self.dataset = dataset
        self.options, self.leniency = options, options.find_leniency()
        self.offered = tuple(fields)
        self.fields: tuple[Field, ...] = tuple(f for f in fields if not f.output_only)
        self.rows = 0  # good or bad, so far
        #: The names of columns that no field has and that are no index; ``options`` ignores them.
        self.unknown_columns: list[str] = []
        #: Where bad rows do not name columns by the paths of fields: the column's name -> the path.
        self.column_names: Mapping[str, str] = {}
        self.unpacker: Unpacker | None = None  # of a file that may be compressed
        self.spool_place = SpoolPlace()  # for a file that must be whole before it is read
        self._kernel = Kernel()
        self._pending = bytearray()
        self._wanted = PIECE_BYTES
        self._begun = False
        self._decoder: codecs.IncrementalDecoder | None = None  # of a file in UTF-16
        self._written: tuple[datetime, int] | None = None

    def write_as(self, time: datetime, revision: int) -> None:
        """Set the time and revision of new records; call it before the first ``feed``.

        A reader may then return rows that are certainly valid as ``RowBatch.fresh``; their log
        entries are numbered from 0 on.
        """
        self._written = time, revision

    def feed(self, chunk: bytes | bytearray | memoryview) -> Iterator[RowBatch]:
        """The rows that the next bytes of the file complete; the generator must be exhausted.

        Each batch is decompressed when it is drawn, so that a small chunk of a compressed file
        stays small.
        """
        if self.unpacker is None:
            yield from self._feed(chunk)
        else:
            for piece in self.unpacker.feed(chunk):
                yield from self._feed(piece)

    async def finish(self) -> AsyncGenerator[Iterator[RowBatch], None]:
        """The last rows, after all bytes were fed: iterators to exhaust one after the other.

        Drawing from one of them computes and never waits, so that a shared thread may do it. Close
        the generator if it is not exhausted.
        """
        yield self.close()

    def close(self) -> Iterator[RowBatch]:
        """The rows that the last bytes complete."""
        if self.unpacker is not None:
            for piece in self.unpacker.close():
                yield from self._feed(piece)
        yield from self._close()

    def columns(self) -> list[tuple[str, Field | None]]:
        """What the file may hold by the names that it uses, and the field of each, if it has one.

        Unknown names are among them only if they are those of columns.
        """
        return [(f.path, f) for f in self.fields]

    def _feed(self, chunk: bytes | bytearray | memoryview) -> Iterator[RowBatch]:
        view = memoryview(chunk)
        for at in range(0, len(view), PIECE_BYTES):
            piece = view[at : at + PIECE_BYTES]
            self._pending += piece if self._decoder is None else self._as_utf8(piece)
            if len(self._pending) >= self._wanted:
                yield from self._advance(final=False)

    def _close(self) -> Iterator[RowBatch]:
        if self._decoder is not None:
            self._pending += self._as_utf8(b"", final=True)
        yield from self._advance(final=True)

    def _as_utf8(self, data: bytes | bytearray | memoryview, *, final: bool = False) -> bytes:
        """The next bytes of a file in UTF-16, in UTF-8. Raises FormatError."""
        assert self._decoder is not None, "the file begins with a byte order mark of UTF-16"
        try:
            return self._decoder.decode(bytes(data), final).encode()
        except UnicodeDecodeError as exc:
            reason = f"the file begins as UTF-16 but is not valid:  {exc.reason}"
            raise FormatError(reason, truncated=exc.reason in _ENDS_EARLY) from None

    def _advance(self, final: bool) -> Iterator[RowBatch]:
        if not self._begun:
            self._begun = True
            if self._pending.startswith(_BOM):
                del self._pending[: len(_BOM)]
            elif self.names_no_encoding and self._pending.startswith(_UTF16_MARKS):
                self._decoder = codecs.getincrementaldecoder("utf-16")()
                self._pending = bytearray(self._as_utf8(self._pending, final=final))
        consumed, batch = self._take(bytes(self._pending), final)
        del self._pending[:consumed]
        if len(self._pending) > ROW_LIMIT:
            raise FormatError("is longer than 1 MiB", row=self.rows + 1)
        # Bytes of an unfinished row are parsed again, so wait until there are twice as many.
        self._wanted = max(PIECE_BYTES, 2 * len(self._pending))
        if batch is not None and (batch.rows or batch.bad or batch.fresh):
            yield batch

    @abstractmethod
    def _take(self, data: bytes, final: bool) -> tuple[int, RowBatch | None]:
        """Parse the complete rows at the start of ``data``; return their size and the rows."""


def check_receipt(document: str | bytes, rows: int) -> None:
    """Check the receipt at the end of an export against the number of rows before it.

    FormatError, ``truncated``, if the export was incomplete or rows were lost since; FormatError if
    the document is no receipt.
    """
    try:
        receipt = orjson.loads(document)
        complete, count = receipt.get("state") == "COMPLETE", int(receipt.get("rowCount", 0))
    except (ValueError, TypeError, AttributeError):
        raise FormatError("the end of the file is not a receipt") from None
    if not complete:
        reason = "the file ends with a receipt that says that it is not complete"
        raise FormatError(reason, truncated=True)
    if count != rows:
        reason = f"the file holds {rows} rows, its receipt says {count}"
        raise FormatError(reason, truncated=True)
