"""XLSX input: turns the first sheet into cells of text, in its own process (see ``row_frames``).

The first row names the columns. A formula counts as the value that was stored with it. Numbers are
printed as the shortest text of the sheet's number; a number in a cell formatted as a date is a day
or a time without a zone, in the workbook's calendar of 1900 or 1904. A time is as exact as its
number, which spreadsheets round: one that is within 5 microseconds of a whole millisecond counts as
that.
"""

from __future__ import annotations

import math
import os
import re
import sys
import zipfile
from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

# The standard library's parser, whatever else is installed.
os.environ["OPENPYXL_LXML"] = "False"

import openpyxl
from openpyxl.styles.numbers import is_date_format, is_timedelta_format
from openpyxl.utils.datetime import MAC_EPOCH

from penstockd.native.abi import CELL, NULL_CELL, REFUSED, ROW
from penstockd.row_frames import (
    COLUMN_LIMIT,
    HEADER,
    ROW_LIMIT,
    ROWS,
    SUSPECT,
    FileUnreadable,
    Frames,
    run_unpacker,
)

_NULL, _ROW, _CELL = bytes([NULL_CELL]), bytes([ROW]), bytes([CELL])
_REFUSED = bytes.maketrans(_NULL + _ROW + _CELL, bytes([REFUSED]) * 3)
_ALLOWED = bytes({*range(0x20, 256), *b"\t\n\r"})
_FRAME_BYTES = 256 << 10
#: Rows of a sheet, the header included.
_MOST_ROWS = 1 << 20
#: As for compressed files: a workbook may expand to this many times its size, and to this many
#: bytes in any case.
_RATIO_LIMIT, _FREE_BYTES = 300, 16 << 20
_FORMULA = re.compile(rb"<(?:[A-Za-z0-9_]+:)?f[\s>/]")
_ESCAPE = re.compile(r"_x([0-9A-Fa-f]{4})_")
_DAY = 86_400_000_000  # microseconds
#: Spreadsheets write fifteen digits, so a whole millisecond is off by up to this many microseconds.
_SNAP = 5


def main() -> None:
    """Read standard input as requested and write frames."""
    # Exception: openpyxl raises any error for damaged parts.
    run_unpacker(lambda request: make_frames(sys.stdin.buffer), (Exception,))


def make_frames(file: Any) -> Frames:
    """The frames of a workbook. Raises FileUnreadable and whatever openpyxl raises."""
    _check_archive(file)
    book = _open_book(file, values=True)
    if not book.worksheets:
        raise FileUnreadable("the workbook has no sheet")
    sheet = _Sheet(book)
    formulas = _has_formulas(file, book.worksheets[0])
    lines = sheet.lines(_open_book(file, values=False) if formulas else None)
    names = next(lines, [])
    while names and names[-1] is None:
        names.pop()
    if not names:
        raise FileUnreadable("the sheet is empty: its first row must name the columns")
    yield HEADER, _CELL.join(_NULL if n is None else n.translate(_REFUSED) for n in names)
    gathered, suspect = bytearray(), False
    for number, cells in enumerate(filter(any_value, lines), 1):
        while len(cells) > len(names) and cells[-1] is None:
            cells.pop()
        cells += [None] * (len(names) - len(cells))
        line = _CELL.join(_NULL if c is None else c for c in cells)
        if len(line) > ROW_LIMIT:
            raise FileUnreadable("is longer than 1 MiB", number)
        plain = b"".join(c for c in cells if c is not None)
        if plain.translate(None, _ALLOWED):
            suspect = True
            line = _CELL.join(_NULL if c is None else c.translate(_REFUSED) for c in cells)
        gathered += line + _ROW
        if len(gathered) > _FRAME_BYTES:
            yield SUSPECT if suspect else ROWS, bytes(gathered)
            gathered, suspect = bytearray(), False
    if gathered:
        yield SUSPECT if suspect else ROWS, bytes(gathered)


def any_value(cells: list[bytes | None]) -> bool:
    """Whether a row has a value: rows without any are skipped, like blank lines of CSV."""
    return any(c is not None for c in cells)


def _check_archive(file: Any) -> None:
    """Raise FileUnreadable for a file that is not a zip, and for one that expands to far more than
    its size."""
    begins = file.read(4)
    try:
        entries = zipfile.ZipFile(file).infolist()
    except zipfile.BadZipFile:
        if begins == b"PK\x03\x04":
            raise FileUnreadable("the file ends before its directory", truncated=True) from None
        raise FileUnreadable("the file is not XLSX") from None
    size = sum(e.file_size for e in entries)
    packed = file.seek(0, os.SEEK_END)
    if size > _FREE_BYTES and size > _RATIO_LIMIT * packed:
        raise FileUnreadable(f"the file decompresses to more than {_RATIO_LIMIT} times its size")


def _open_book(file: Any, *, values: bool) -> Any:
    """The workbook, with the stored values of formulas or with the formulas."""
    book = openpyxl.load_workbook(file, read_only=True, data_only=values, keep_links=False)
    # Dates stay numbers: openpyxl would round times to milliseconds.
    book._date_formats = frozenset()
    return book


def _has_formulas(file: Any, sheet: Any) -> bool:
    """Whether a sheet may have a formula; looks at its bytes, piece by piece."""
    with zipfile.ZipFile(file) as archive, archive.open(sheet._worksheet_path) as source:
        rest = b""
        while piece := source.read(1 << 20):
            if _FORMULA.search(rest + piece):
                return True
            rest = piece[-64:]
    return False


class _Sheet:
    """The cells of the first sheet as text."""

    def __init__(self, book: Any) -> None:
        self._sheet = book.worksheets[0]
        self._epoch = book.epoch
        self._formats: dict[int, bool] = {}  # whether a style shows numbers as dates

    def lines(self, formulas: Any) -> Iterator[list[bytes | None]]:
        """The rows; ``formulas`` is the same workbook with formulas, if it has any."""
        self._sheet.reset_dimensions()
        shadow: Iterator[Any] = iter(())
        if formulas is not None:
            formulas.worksheets[0].reset_dimensions()
            shadow = formulas.worksheets[0].iter_rows()
        for number, row in enumerate(self._sheet.iter_rows()):
            if number >= _MOST_ROWS:
                raise FileUnreadable(f"the sheet has more than {_MOST_ROWS - 1} rows")
            if formulas is not None:
                for cell, written in zip(row, next(shadow), strict=True):
                    if written.data_type == "f" and cell.value is None:
                        reason = (
                            f"has a formula without a stored value at {written.coordinate}: "
                            "save the file in a spreadsheet"
                        )
                        raise FileUnreadable(reason, number or None)
            # Some writers format the cells of a whole row, which is wider.
            if any(cell.value is not None for cell in row[COLUMN_LIMIT:]):
                reason = f"has more than {COLUMN_LIMIT} columns"
                raise FileUnreadable(reason if number else f"the file {reason}", number or None)
            yield [self._text(cell, number) for cell in row[:COLUMN_LIMIT]]

    def _text(self, cell: Any, number: int) -> bytes | None:
        value = cell.value
        if value is None:
            return None
        if cell.data_type == "e":
            raise FileUnreadable(f"has the error {value} at {cell.coordinate}", number or None)
        if isinstance(value, str):
            text = _ESCAPE.sub(lambda found: chr(int(found[1], 16)), value)
            return text.encode("utf-8", "surrogatepass")
        if isinstance(value, bool):
            return b"true" if value else b"false"
        if isinstance(value, int | float):
            return self._number(cell, value).encode()
        return str(value).encode()  # a time in ISO 8601, which few writers use

    def _number(self, cell: Any, value: float) -> str:
        if isinstance(value, float) and not math.isfinite(value):
            return str(value)
        if self._is_date(cell):
            return self._date(value) or str(value)
        if isinstance(value, int):
            return str(value)
        if abs(value) < 1e40:
            text = format(Decimal(repr(value)), "f")
            return text.rstrip("0").rstrip(".") if "." in text else text
        return repr(value)

    def _is_date(self, cell: Any) -> bool:
        style = cell._style_id
        if style not in self._formats:
            form = cell.number_format
            self._formats[style] = is_date_format(form) and not is_timedelta_format(form)
        return self._formats[style]

    def _date(self, serial: float) -> str:
        """The day or time of a serial number of days; "" if it is not valid."""
        days, fraction = divmod(serial, 1)
        moment = round(fraction * _DAY)
        whole = round(fraction * _DAY / 1000) * 1000
        if abs(moment - whole) <= max(_SNAP, math.ulp(serial) * _DAY):
            moment = whole
        if self._epoch != MAC_EPOCH:
            if days == 60 or days < 1:  # 29 February 1900, which never existed; a time of day
                return ""
            days += days < 60
        try:
            found: datetime = self._epoch + timedelta(days=int(days), microseconds=moment)
        except OverflowError:
            return ""
        return found.isoformat()[:10] if not moment else found.isoformat()


if __name__ == "__main__":
    main()
