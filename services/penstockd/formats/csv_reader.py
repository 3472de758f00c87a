"""CSV in: cut into cells by the kernel, converted column by column."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from penstockd.catalog.model import Dataset, Field, Kind
from penstockd.catalog.values import (
    Parser,
    ValueRefused,
    completer,
    default,
    implicit_defaults,
    text_parser,
)
from penstockd.formats.errors import FormatError
from penstockd.formats.kernel import DONE, MALFORMED
from penstockd.formats.reading import COLUMN_LIMIT, BadRow, Batch, Reader

_NULL, _ROW, _CELL = b"\x1d", b"\x1e", b"\x1f"  # split.c
_NULL_TEXT = _NULL.decode()
_NOT_IN_TEXT = ("\ufffe", "\uffff")  # no control characters, yet refused
_REASONS = {
    1: "has text after a cell's closing quote",
    2: "has a quote inside an unquoted cell",
    3: "has a carriage return without a line feed outside quotes",
    4: "the file ends inside a quoted cell that begins here",
}


class CsvReader(Reader):
    """RFC 4180; the first line names the columns, in any order.

    An empty cell is NULL, or the default of what cannot be; a quoted empty one is an empty string.
    Rows with equal repeated fields may share one list, which is not to be changed.
    """

    def __init__(self, dataset: Dataset, fields: Sequence[Field]) -> None:
        super().__init__(dataset, fields)
        self._columns: list[_Column] = []
        self._width = 0

    def _take(self, data: bytes, final: bool) -> tuple[int, Batch | None]:
        taken = self._kernel.split_csv(data, final, self._width)
        output, rows, suspect = taken.output, taken.rows, taken.status != DONE or taken.detail != 0
        if rows and not self._width:
            header, _, output = output.partition(_ROW)
            self._header(header)
            rows, suspect = rows - 1, True
        batch = self._batch(output, rows, suspect)
        if taken.status == MALFORMED:
            raise FormatError(_REASONS[taken.detail], row=self.rows + 1 if self._width else 0)
        if final and not self._width:
            raise FormatError("the file is empty: its first line must name the columns")
        return taken.consumed, batch

    def _header(self, line: bytes) -> None:
        try:
            names = line.decode().split(_CELL.decode())
        except UnicodeDecodeError:
            raise FormatError("the header is not UTF-8") from None
        if len(names) > COLUMN_LIMIT:
            raise FormatError(f"the header names more than {COLUMN_LIMIT} columns")
        known = {f.path: f for f in self.offered}
        for i, name in enumerate(names):
            if name not in known:
                shown = "" if name == _NULL_TEXT else name[:200]
                raise FormatError(f"the header names the unknown column '{shown}'")
            if name in names[:i]:
                raise FormatError(f"the header names the column '{name}' twice")
        if self.dataset.key.path not in names:
            raise FormatError(f"the header lacks the key column '{self.dataset.key.path}'")
        self._width = len(names)
        self._columns = [
            _Column(known[name], i) for i, name in enumerate(names) if not known[name].output_only
        ]
        self.fields = tuple(c.field for c in self._columns)
        self._complete = completer(self.dataset, self.fields)
        self._implicit = list(implicit_defaults(self.fields))

    def _batch(self, output: bytes, count: int, suspect: bool) -> Batch:
        first = self.rows + 1
        if count and not suspect:
            try:
                text = output[:-1].replace(_ROW, _CELL).decode()
                if not any(c in text for c in _NOT_IN_TEXT):
                    rows = self._columnwise(text)
                    self.rows += count
                    return Batch(range(first, first + count), rows)
            except ValueError:
                pass  # some row is bad; which one and why is found row by row
        lines = output.split(_ROW)[:-1]
        if self._width > 1:
            lines = [line for line in lines if line != _NULL]  # blank ones
        self.rows += len(lines)
        return self._rowwise(lines, first)

    def _columnwise(self, text: str) -> list[list[Any]]:
        cells = text.split(_CELL.decode())
        columns = [c.convert(cells[c.index :: self._width]) for c in self._columns]
        rows = list(map(list, zip(*columns, strict=True)))
        for i in self._implicit:
            if None in columns[i]:
                for row, value in zip(rows, columns[i], strict=True):
                    if value is None:
                        self._complete(row)
        return rows

    def _rowwise(self, lines: list[bytes], first: int) -> Batch:
        numbers, rows, bad = [], [], []
        for number, line in enumerate(lines, first):
            found = self._row(line, number)
            if isinstance(found, list):
                numbers.append(number)
                rows.append(found)
            else:
                bad.append(found)
        return Batch(numbers, rows, bad)

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


class _Column:
    """One column of the file: its field, and how its cells become values."""

    def __init__(self, field: Field, index: int) -> None:
        self.field = field
        self.index = index
        self._parse = text_parser(field)
        # Text that is valid UTF-8 and holds no control character needs no further look.
        self._fast: Parser | None = (
            None if field.kind is Kind.STRING and not field.key else self._parse
        )

    def parse(self, cell: str) -> Any:
        """The value of one cell; raises ValueRefused."""
        if cell != _NULL_TEXT:
            return self._parse(cell)
        return None if self.field.nullable else default(self.field)

    def convert(self, cells: list[str]) -> list[Any]:
        """The values of many cells that hold nothing forbidden; raises ValueRefused."""
        parse = self._fast
        if self.field.repeated:  # labels and the like recur
            known = {c: self.parse(c) for c in set(cells)}
            return [known[c] for c in cells]
        if _NULL_TEXT not in cells:
            return cells if parse is None else list(map(parse, cells))
        if not self.field.nullable:
            return [self.parse(c) for c in cells]
        if parse is None:
            return [None if c == _NULL_TEXT else c for c in cells]
        return [None if c == _NULL_TEXT else parse(c) for c in cells]
