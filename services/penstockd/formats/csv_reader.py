"""CSV input: the kernel splits it into cells and makes records, or Python converts the columns."""

from __future__ import annotations

import re
from array import array
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from penstockd.catalog.keys import join_key
from penstockd.catalog.leniency import Leniency
from penstockd.catalog.model import Dataset, Field, Kind
from penstockd.catalog.values import (
    Parser,
    ValueRefused,
    default_value,
    implicit_defaults,
    make_completer,
    text_parser,
)
from penstockd.formats.options import FROM_FILE, ReadOptions
from penstockd.formats.reading import COLUMN_LIMIT, BadRow, Reader, RowBatch
from penstockd.native.abi import CELL, LOAD_BLANK, LOAD_LEFT, NULL_CELL, ROW, CsvFault, Status
from penstockd.native.errors import FormatError
from penstockd.native.kernel import Kernel
from penstockd.native.load_plan import load_plan
from penstockd.store.fresh import FreshRows

_NULL, _ROW, _CELL = bytes([NULL_CELL]), bytes([ROW]), bytes([CELL])
_NULL_TEXT, _CELL_TEXT = _NULL.decode(), _CELL.decode()
_PANDAS_INDEX = "__index_level_0__"
_QUOTED = re.compile(rb'"[^"]*+"')
_HEADER = re.compile(rb'(?:[^"\r\n]++|"[^"]*+")*+')
_ENOUGH = 100  # rows that suffice to judge how a file spells its values
_NOT_IN_TEXT = ("\ufffe", "\uffff")  # not control characters, but refused
_REASONS = {
    CsvFault.AFTER_QUOTE: "has text after a cell's closing quote",
    CsvFault.QUOTE_INSIDE: "has a quote inside an unquoted cell",
    CsvFault.BARE_RETURN: "has a carriage return without a line feed outside quotes",
    CsvFault.OPEN_QUOTE: "the file ends inside a quoted cell that begins here",
}


def json_path(field: Field) -> str:
    """The path of a field as in JSON, which a column may have, too: address.postalCode."""
    return ".".join(field.json_steps)


def _find_index_columns(names: Sequence[str]) -> set[int]:
    """The places of the columns that contain pandas' index: in CSV the first one without a name, in
    Parquet and Arrow one with a name of pandas' own."""
    found = {i for i, name in enumerate(names) if name == _PANDAS_INDEX}
    if len(names) > 1 and names[0] in ("", _NULL_TEXT):
        found.add(0)
    return found


def _recognise_delimiter(data: bytes, final: bool) -> bytes:
    """What parts the names of the header at the start of ``data``; b"" if more of it is needed.

    It is the one of comma, semicolon and tab that stands most often outside quotes; of two that
    stand equally often, the first of this list.
    """
    found = _HEADER.match(data)
    assert found is not None, "it matches nothing, too"
    ended = found.end() < len(data) and data[found.end()] in b"\r\n"
    if not ended and not final:
        return b""
    plain = _QUOTED.sub(b"", found[0])
    return max((b",", b";", b"\t"), key=plain.count)


class CsvReader(Reader):
    """RFC 4180, with the delimiter of the options or, without it, the one that the header shows.

    The first line names the columns, in any order, by path or as in JSON. A first column without a
    name is ignored.

    An empty cell is NULL, or the default of a field that cannot be NULL; a quoted empty one is an
    empty string. Rows with equal repeated fields may share one list, which must not be changed.
    """

    def __init__(
        self, dataset: Dataset, fields: Sequence[Field], options: ReadOptions = FROM_FILE
    ) -> None:
        super().__init__(dataset, fields, options)
        self._delimiter = options.find_delimiter()  # b"" until the header is read
        self._columns: list[_CsvColumn] = []
        self._width = 0
        self._named: list[tuple[str, Field | None]] = []
        self.loader: Kernel | None = None
        self.fresh_rows = 0  # rows so far that were returned as fresh

    def _take(self, data: bytes, final: bool) -> tuple[int, RowBatch | None]:
        if not self._delimiter:
            self._delimiter = _recognise_delimiter(data, final)
        if not self._delimiter:
            return 0, None
        taken = self._kernel.split_csv(data, final, self._width, self._delimiter)
        output, rows, suspect = (
            taken.output,
            taken.rows,
            taken.status != Status.DONE or taken.detail != 0,
        )
        if rows and not self._width:
            header, _, output = output.partition(_ROW)
            self._header(header)
            rows, suspect = rows - 1, True
        batch = self._batch(output, rows, suspect)
        if taken.status == Status.MALFORMED:
            row = self.rows + 1 if self._width else 0
            raise FormatError(
                _REASONS[CsvFault(taken.detail)],
                row=row,
                truncated=taken.detail == CsvFault.OPEN_QUOTE,
            )
        if final and not self._width:
            raise FormatError("the file is empty: its first line must name the columns")
        return taken.consumed, batch

    def _header(self, line: bytes) -> None:
        try:
            names = line.decode().split(_CELL_TEXT)
        except UnicodeDecodeError:
            raise FormatError("the header is not UTF-8") from None
        if len(names) > COLUMN_LIMIT:
            raise FormatError(f"the header names more than {COLUMN_LIMIT} columns")
        known = {name: f for f in self.offered for name in (json_path(f), f.path)}
        written = ["" if name == _NULL_TEXT else name for name in names]
        self._named = [(name, known.get(name)) for name in written]
        names = [known[name].path if name in known else name for name in names]
        ignored = _find_index_columns(names)
        for i, name in enumerate(names):
            if i in ignored:
                continue
            if name not in known:
                shown = "" if name == _NULL_TEXT else name
                if self.leniency.unknown is None:
                    raise FormatError(f"the header names the unknown column '{shown[:200]}'")
                self.unknown_columns.append(shown)
                ignored.add(i)
            elif name in names[:i]:
                raise FormatError(f"the header names the column '{name}' twice")
        for key in self.dataset.key_fields:
            if key.path not in names:
                raise FormatError(f"the header lacks the key column '{key.path}'")
        self._width = len(names)
        self._columns = [
            _CsvColumn(known[name], i, self.leniency)
            for i, name in enumerate(names)
            if i not in ignored and not known[name].output_only
        ]
        self.fields = tuple(c.field for c in self._columns)
        self._complete = make_completer(self.dataset, self.fields)
        self._implicit = list(implicit_defaults(self.fields))
        if self._written is not None:
            header = [None if i in ignored else known[n] for i, n in enumerate(names)]
            plan = load_plan(self.dataset, header, *self._written)
            self.loader = None if plan is None else Kernel(plan)

    def columns(self) -> list[tuple[str, Field | None]]:
        """The columns of the header."""
        return self._named

    def _batch(self, output: bytes, count: int, suspect: bool) -> RowBatch:
        before = self.rows
        batch = self._rows_of(output, count, suspect)
        if self.leniency.unknown is not None:
            for name in self.unknown_columns:
                self.leniency.unknown.note(name, self.rows - before)
        return batch

    def _rows_of(self, output: bytes, count: int, suspect: bool) -> RowBatch:
        if self.loader is not None and count:
            return self._loaded(self.loader, output, count, suspect)
        first = self.rows + 1
        if count and not suspect:
            self.rows += count
            return self._converted(output, range(first, first + count))
        lines = output.split(_ROW)[:-1]
        if self._width > 1:
            lines = [line for line in lines if line != _NULL]  # blank ones
        self.rows += len(lines)
        return self._rowwise(lines, range(first, first + len(lines)))

    def _loaded(self, loader: Kernel, output: bytes, count: int, suspect: bool) -> RowBatch:
        """The rows of which the kernel makes records, and those that it leaves."""
        fresh, first = FreshRows(self.fresh_rows), self.rows + 1
        sizes = array("i")
        for part in loader.load(output, count, self.fresh_rows):
            fresh.add(part.keys.decode().split(_CELL_TEXT)[:-1], part.rows, part.entries)
            sizes.frombytes(part.sizes)
        self.fresh_rows += len(fresh)
        if len(fresh) == count:
            self.rows += count
            fresh.source(range(first, first + count), sizes, partial(self._decode, output))
            return RowBatch((), [], fresh=fresh)
        if not len(fresh) and count > _ENOUGH:
            self.loader = None  # the kernel does not read this file's spelling of values
        taken, left = _CsvLines(), _CsvLines()
        for line, size in zip(output.split(_ROW), sizes[::2], strict=False):
            if size != LOAD_BLANK:
                self.rows += 1
                (left if size == LOAD_LEFT else taken).add(line, self.rows)
        sizes = array("i", [n for n in sizes if n > 0])
        fresh.source(taken.numbers, sizes, partial(self._decode, taken.output()))
        if suspect:
            batch = self._rowwise(left.lines, left.numbers)
        else:
            batch = self._converted(left.output(), left.numbers)
        batch.fresh = fresh
        return batch

    def _decode(self, output: bytes, places: Sequence[int]) -> list[list[Any]]:
        """The values of some rows that the kernel took; none of these rows is bad."""
        lines = output.split(_ROW)[:-1]
        if len(places) < len(lines):
            output = _ROW.join([*(lines[i] for i in places), b""])
        return self._converted(output, range(len(places))).rows

    def _converted(self, output: bytes, numbers: Sequence[int]) -> RowBatch:
        """The values of rows that have all cells and contain no control characters."""
        try:
            text = output[:-1].replace(_ROW, _CELL).decode()
            if not any(c in text for c in _NOT_IN_TEXT):
                return RowBatch(numbers, self._columnwise(text))
        except ValueError:
            pass  # some row is bad; _rowwise finds which one and why
        return self._rowwise(output.split(_ROW)[:-1], numbers)

    def _columnwise(self, text: str) -> list[list[Any]]:
        cells = text.split(_CELL_TEXT)
        columns = [c.convert(cells[c.index :: self._width]) for c in self._columns]
        rows = list(map(list, zip(*columns, strict=True)))
        for i in self._implicit:
            if None in columns[i]:
                for row, value in zip(rows, columns[i], strict=True):
                    if value is None:
                        self._complete(row)
        return rows

    def _rowwise(self, lines: list[bytes], numbers: Sequence[int]) -> RowBatch:
        good, rows, bad = [], [], []
        for number, line in zip(numbers, lines, strict=True):
            found = self._row(line, number)
            if isinstance(found, list):
                good.append(number)
                rows.append(found)
            else:
                bad.append(replace(found, key=self._key(line)))
        return RowBatch(good, rows, bad)

    def _key(self, line: bytes) -> str:
        """The key of a bad row, if it can be read."""
        cells = line.split(_CELL)
        places = {c.field: c.index for c in self._columns}
        parts = [cells[at] for f in self.dataset.key_fields if (at := places[f]) < len(cells)]
        if len(parts) < len(self.dataset.key_fields) or _NULL in parts:
            return ""
        return join_key([part.decode(errors="replace") for part in parts])

    def _row(self, line: bytes, number: int) -> list[Any] | BadRow:
        cells = line.split(_CELL)
        if len(cells) != self._width:
            return BadRow(number, "", f"has {len(cells)} cells, the header {self._width}")
        row = []
        for column in self._columns:
            try:
                row.append(column.parse(cells[column.index].decode()))
            except UnicodeDecodeError as error:
                reason = f"is not UTF-8 at byte {error.start + 1}"
                return BadRow(number, column.field.path, reason)
            except ValueRefused as refused:
                return BadRow(number, column.field.path, refused.reason)
        try:
            self._complete(row)
        except ValueRefused as refused:
            return BadRow(number, "", refused.reason)
        return row


class _CsvLines:
    """Some rows as ``split_csv`` returns them, with their numbers."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.numbers: list[int] = []

    def add(self, line: bytes, number: int) -> None:
        self.lines.append(line)
        self.numbers.append(number)

    def output(self) -> bytes:
        return _ROW.join([*self.lines, b""])


class _CsvColumn:
    """One column of the file: its field, and how its cells become values."""

    def __init__(self, field: Field, index: int, leniency: Leniency) -> None:
        self.field = field
        self.index = index
        self._parse = text_parser(field, leniency)
        # Text that is valid UTF-8 without control characters needs no further check.
        self._fast: Parser | None = (
            None if field.kind is Kind.STRING and not field.in_key else self._parse
        )

    def parse(self, cell: str) -> Any:
        """The value of one cell; raises ValueRefused."""
        if cell != _NULL_TEXT:
            return self._parse(cell)
        return None if self.field.nullable else default_value(self.field)

    def convert(self, cells: list[str]) -> list[Any]:
        """The values of many cells without forbidden characters; raises ValueRefused."""
        parse = self._fast
        if self.field.is_json:  # values such as labels recur
            known = {c: self.parse(c) for c in set(cells)}
            return [known[c] for c in cells]
        if _NULL_TEXT not in cells:
            return cells if parse is None else list(map(parse, cells))
        if not self.field.nullable:
            return [self.parse(c) for c in cells]
        if parse is None:
            return [None if c == _NULL_TEXT else c for c in cells]
        return [None if c == _NULL_TEXT else parse(c) for c in cells]
