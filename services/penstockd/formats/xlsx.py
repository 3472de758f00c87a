"""XLSX output: one sheet, for people to read. It is written as a stream, like every other format.

An XLSX file is a zip of XML; the kernel prints the rows, and they are compressed outside the
interpreter's lock. Text is never a formula. Numbers of more than fifteen digits, which a
spreadsheet would round, are text, and so are days before March 1900, which it cannot represent.
Times are in UTC.
"""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

import sqlalchemy as sa

from penstockd.catalog.model import Dataset, Field
from penstockd.errors import RequestTooLarge
from penstockd.formats.writing import DocumentWriter
from penstockd.native.errors import FormatError
from penstockd.native.print_plan import sheet_plan

#: Rows of a sheet, without the one with the column names.
ROW_LIMIT = 1_048_575
_MOST_COLUMNS = 16_384
_CELL_LIMIT = 32_767  # units of UTF-16
_MOST_BYTES = _CELL_LIMIT // 4 * 3  # of a value that is written in base64
_NOT_ASTRAL = r"[^\U00010000-\U0010FFFF]"
_LEVEL = 1  # a stream must not wait for its compression
_TIME = (1980, 1, 1, 0, 0, 0)  # constant, so that the same rows make the same bytes

_XML = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
_MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006"
_TYPE = "application/vnd.openxmlformats-officedocument.spreadsheetml"
_SHEET = "xl/worksheets/sheet1.xml"
_PARTS = {
    "[Content_Types].xml": (
        f'<Types xmlns="{_PACKAGE}/content-types">'
        '<Default Extension="rels" '
        'ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        '<Default Extension="xml" ContentType="application/xml"/>'
        f'<Override PartName="/xl/workbook.xml" ContentType="{_TYPE}.sheet.main+xml"/>'
        f'<Override PartName="/xl/styles.xml" ContentType="{_TYPE}.styles+xml"/>'
        f'<Override PartName="/{_SHEET}" ContentType="{_TYPE}.worksheet+xml"/></Types>'
    ),
    "_rels/.rels": (
        f'<Relationships xmlns="{_PACKAGE}/relationships"><Relationship Id="rId1" '
        f'Type="{_OFFICE}/officeDocument" Target="xl/workbook.xml"/></Relationships>'
    ),
    "xl/workbook.xml": (
        f'<workbook xmlns="{_MAIN}" xmlns:r="{_OFFICE}"><sheets>'
        '<sheet name="%s" sheetId="1" r:id="rId1"/></sheets></workbook>'
    ),
    "xl/_rels/workbook.xml.rels": (
        f'<Relationships xmlns="{_PACKAGE}/relationships">'
        f'<Relationship Id="rId1" Type="{_OFFICE}/worksheet" Target="worksheets/sheet1.xml"/>'
        f'<Relationship Id="rId2" Type="{_OFFICE}/styles" Target="styles.xml"/></Relationships>'
    ),
    # The formats of cells: plain, date, time, column name.
    "xl/styles.xml": (
        f'<styleSheet xmlns="{_MAIN}"><numFmts count="2">'
        '<numFmt numFmtId="164" formatCode="yyyy\\-mm\\-dd"/>'
        '<numFmt numFmtId="165" formatCode="yyyy\\-mm\\-dd\\ hh:mm:ss.000"/></numFmts>'
        '<fonts count="2"><font><sz val="11"/><name val="Calibri"/></font>'
        '<font><b/><sz val="11"/><name val="Calibri"/></font></fonts>'
        '<fills count="2"><fill><patternFill patternType="none"/></fill>'
        '<fill><patternFill patternType="gray125"/></fill></fills>'
        '<borders count="1"><border><left/><right/><top/><bottom/><diagonal/></border></borders>'
        '<cellStyleXfs count="1"><xf numFmtId="0" fontId="0" fillId="0" borderId="0"/>'
        '</cellStyleXfs><cellXfs count="4">'
        '<xf numFmtId="0" fontId="0" fillId="0" borderId="0" xfId="0"/>'
        '<xf numFmtId="164" fontId="0" fillId="0" borderId="0" xfId="0" applyNumberFormat="1"/>'
        '<xf numFmtId="165" fontId="0" fillId="0" borderId="0" xfId="0" applyNumberFormat="1"/>'
        '<xf numFmtId="0" fontId="1" fillId="0" borderId="0" xfId="0" applyFont="1"/>'
        '</cellXfs><cellStyles count="1"><cellStyle name="Normal" xfId="0" builtinId="0"/>'
        "</cellStyles></styleSheet>"
    ),
}
_OPENING = (
    f'{_XML}<worksheet xmlns="{_MAIN}"><sheetViews><sheetView workbookViewId="0">'
    '<pane ySplit="1" topLeftCell="A2" activePane="bottomLeft" state="frozen"/>'
    "</sheetView></sheetViews><sheetData>"
)
_CLOSING = b"</sheetData></worksheet>"


class XlsxWriter(DocumentWriter):
    """A sheet with a row of column names, at most ROW_LIMIT rows, and no formula.

    ``feed`` raises RequestTooLarge for more rows, and for text that is longer than a cell.
    """

    content_type = f"{_TYPE}.sheet"
    suffix = ".xlsx"
    most_rows = ROW_LIMIT
    loss = (
        "XLSX holds times as binary numbers of days in UTC: to the microsecond until 2079, then to "
        "a few, and to about ten once a spreadsheet has saved them. Days before March 1900 and "
        "numbers of more than 15 digits are text."
    )

    def __init__(self, dataset: Dataset, fields: Sequence[Field]) -> None:
        super().__init__(dataset, fields)
        if len(fields) > _MOST_COLUMNS:
            raise RequestTooLarge(f"a sheet of XLSX holds at most {_MOST_COLUMNS} columns")
        self._sink = _ZipSink()
        self._zip = _SheetZip(self._sink, "w", zipfile.ZIP_DEFLATED)

    def too_long(
        self, field: Field, column: sa.ColumnElement[Any]
    ) -> sa.ColumnElement[bool] | None:
        """See ``DocumentWriter``. The kernel's ``sheet_text`` and ``sheet_bytes`` count alike."""
        type_name, _ = self.types[field.kind]
        if type_name == "bytea":
            return sa.func.octet_length(column) > _MOST_BYTES
        if type_name not in ("text", "jsonb"):
            return None
        text = sa.cast(column, sa.Text())
        astral = sa.func.regexp_replace(text, _NOT_ASTRAL, "", "g")
        units = sa.func.char_length(text) + sa.func.char_length(astral)
        # For most values the number of bytes, which PostgreSQL knows without unpacking, is enough.
        long = sa.func.octet_length(text) > _CELL_LIMIT
        return sa.case((long, units > _CELL_LIMIT), else_=sa.false())

    def head(self) -> bytes:
        """The workbook, and its sheet up to the first record."""
        for name, text in _PARTS.items():
            if "%s" in text:
                text = text % escape(self.dataset.title[:31].translate(_NOT_IN_NAMES))
            self._zip.writestr(_make_entry(name), (_XML + text).encode())
        self._sheet = self._zip.open(_make_entry(_SHEET), "w")
        names = [_ESCAPE.sub("_x005F_", escape(field.path)) for field in self.fields]
        cells = "".join(
            f'<c s="3" t="inlineStr"><is><t xml:space="preserve">{n}</t></is></c>' for n in names
        )
        self._sheet.write(f"{_OPENING}<row>{cells}</row>".encode())
        return self._sink.take()

    def feed(self, chunk: bytes | bytearray | memoryview) -> bytes:
        """The rows that ``chunk`` completes, as far as the compressor releases them."""
        try:
            data = super().feed(chunk)
        except FormatError as exc:
            if exc.row is None:
                raise
            # Every value of the model fits into a cell unless it is too long.
            limit = f"a cell of XLSX holds at most {_CELL_LIMIT} characters"
            raise RequestTooLarge(f"{exc}: {limit}; leave the field out or use CSV") from exc
        if self.rows > ROW_LIMIT:
            raise RequestTooLarge(f"a sheet of XLSX holds at most {ROW_LIMIT} rows; use CSV")
        self._write(data)
        return self._sink.take()

    def tail(self) -> bytes:
        """The end of the sheet and the directory of the zip."""
        super().tail()
        self._write(_CLOSING)
        self._sheet.close()
        self._zip.close()
        return self._sink.take()

    @property
    def lossy_cells(self) -> Mapping[str, int]:
        """See ``DocumentWriter``: numbers and days as text, and times of parts of a millisecond."""
        counts = self._kernel.count_losses(len(self.selected))
        named = zip(self.selected, counts, strict=True)
        return {field.path: count for field, count in named if count}

    def _write(self, data: bytes) -> None:
        try:
            self._sheet.write(data)
        except RuntimeError as exc:  # zip's limit of 2 GiB per entry
            raise RequestTooLarge("the sheet is larger than XLSX allows; use CSV") from exc

    def _plan(self) -> bytes:
        return sheet_plan(self.fields)


class _SheetZip(zipfile.ZipFile):
    """A zip without an end unless it is closed: the file of an export that fails has none."""

    def __del__(self) -> None:
        """Do nothing; a ZipFile would raise, since its sheet is still open."""


class _ZipSink(io.RawIOBase):
    """Keeps the written bytes until they are taken; the zip cannot seek in it."""

    def __init__(self) -> None:
        super().__init__()
        self._data = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: bytes | bytearray | memoryview) -> int:  # type: ignore[override]
        self._data += data
        return len(data)

    def take(self) -> bytes:
        data, self._data = bytes(self._data), bytearray()
        return data


#: An underscore that XLSX would read as the beginning of an escape.
_ESCAPE = re.compile("_(?=x[0-9A-Fa-f]{4}_)")
#: Characters that the name of a sheet must not contain.
_NOT_IN_NAMES = str.maketrans(dict.fromkeys('[]:*?/\\"', " "))


def _make_entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _TIME)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry._compresslevel = _LEVEL  # type: ignore[attr-defined]  # has no other way in
    return entry
