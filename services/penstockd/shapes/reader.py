"""Files in the columns of a shape, read as records of the dataset."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from penstockd.catalog import Dataset, Field
from penstockd.catalog.values import ValueRefused, make_completer
from penstockd.formats import BadRow, FormatError, Reader, ReadOptions, RowBatch, open_reader
from penstockd.policy.view import View
from penstockd.shapes.inverse import ReadColumn, ShapeInverse
from penstockd.shapes.using import ChosenShape
from penstockd.spools import SpoolPlace


class ShapedReader(Reader):
    """A reader of any format whose columns have the names and forms of a shape.

    ``fields`` are the fields of the dataset to which the file's columns give values.
    """

    def __init__(
        self,
        format: str,
        dataset: Dataset,
        columns: Sequence[ReadColumn],
        options: ReadOptions,
        spool_place: SpoolPlace,
    ) -> None:
        """Raise FormatUnknown and ValueInvalid as ``open_reader`` does."""
        written = [column.written for column in columns]
        # No column counts as a key here: ``_place_fields`` checks that the file has the key.
        form = replace(dataset, fields=tuple(written))
        self._inner = open_reader(format, form, written, options, spool_place=spool_place)
        super().__init__(dataset, [c.target for c in columns if c.target is not None], options)
        self.leniency = self._inner.leniency
        self._columns = {column.written: column for column in columns}
        self.column_names = {c.written.path: c.target.path for c in columns if c.target is not None}
        self._known: tuple[Field, ...] | None = None

    def feed(self, chunk: bytes | bytearray | memoryview) -> Iterator[RowBatch]:
        """The rows that the next bytes of the file complete; the generator must be exhausted."""
        for batch in self._inner.feed(chunk):
            yield self._turn(batch)

    async def finish(self) -> AsyncGenerator[Iterator[RowBatch], None]:
        """The last rows, after all bytes were fed: iterators to exhaust one after another."""
        async with aclosing(self._inner.finish()) as parts:
            async for part in parts:
                yield map(self._turn, part)

    def close(self) -> Iterator[RowBatch]:
        """The rows that the last bytes complete."""
        yield from map(self._turn, self._inner.close())

    def columns(self) -> list[tuple[str, Field | None]]:
        """The columns of the file, each with the field to which it gives values."""
        self.unknown_columns = self._inner.unknown_columns
        named = self._inner.columns()
        return [(n, None if f is None else self._columns[f].target or f) for n, f in named]

    def _place_fields(self) -> None:
        """Find the fields of the file's columns, which are known once its first rows are."""
        if self._inner.fields is self._known:
            return
        self._known = self._inner.fields
        self._taken = [self._columns[f] for f in self._known]
        self.fields = tuple(c.target for c in self._taken if c.target is not None)
        names = {c.target: c.written.path for c in self._columns.values()}
        for key in self.dataset.key_fields:
            if key not in self.fields:
                raise FormatError(f"the header lacks the key column '{names[key]}'")
        self._complete = make_completer(self.dataset, self.fields)

    def _turn(self, batch: RowBatch) -> RowBatch:
        self._place_fields()
        numbers, rows, bad = [], [], [*batch.bad]
        for number, row in zip(batch.numbers, batch.rows, strict=True):
            found = self._read_row(number, row)
            if isinstance(found, BadRow):
                bad.append(found)
            else:
                numbers.append(number)
                rows.append(found)
        return RowBatch(numbers, rows, sorted(bad, key=lambda b: b.row))

    def _read_row(self, number: int, row: Sequence[Any]) -> list[Any] | BadRow:
        found = []
        for column, value in zip(self._taken, row, strict=True):
            try:
                found.append(column.parse(value))
            except ValueRefused as refused:
                return BadRow(number, column.written.path, refused.reason)
        try:
            self._complete(found)
        except ValueRefused as refused:
            return BadRow(number, "", refused.reason)
        return found

    def _take(self, data: bytes, final: bool) -> tuple[int, RowBatch | None]:
        raise AssertionError("the reader of the format parses the file")


def open_import_reader(
    view: View,
    format: str,
    options: ReadOptions,
    chosen: ChosenShape | None,
    spools: SpoolPlace,
) -> Reader:
    """The reader of a file in the columns of a shape; without a shape, in those of a View.

    Raises ValueInvalid for a shape that cannot be read back, and what ``open_reader`` raises.
    """
    if chosen is None:
        offered = [f for f in view.fields() if f.output_only or f in view.writable]
        return open_reader(format, view.dataset, offered, options, spool_place=spools)
    inverse = ShapeInverse(view, chosen.document)
    inverse.check(view.writable)
    return ShapedReader(format, view.dataset, inverse.columns, options, spools)
