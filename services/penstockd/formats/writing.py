"""Exports: turns rows from PostgreSQL's COPY into bytes of a format.

The read is one ``COPY (SELECT …) TO STDOUT``. Masks, projections and row filters are in its SQL, so
that a writer never sees what the caller may not see. Writers differ only in their plan, head and
tail, and all print a value as ``catalog.values.to_text`` does in Python.
"""

from __future__ import annotations

import codecs
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, overload

import sqlalchemy as sa

from penstockd.catalog.model import Dataset, Field
from penstockd.errors import RequestTooLarge, ValueInvalid
from penstockd.formats.record_xml import XML_DECLARATION
from penstockd.native.abi import Status
from penstockd.native.copy_types import COPY_TYPES
from penstockd.native.errors import FormatError
from penstockd.native.kernel import Data, Kernel
from penstockd.native.keys import KeySet
from penstockd.native.print_plan import csv_plan, json_plan, lacks_key, xml_plan

_SIGNATURE = b"PGCOPY\n\xff\r\n\0"
_HEADER = len(_SIGNATURE) + 8  # flags, length of an extension
_PIECE = 256 << 10  # bytes passed to the kernel at once
_MOST = 16 << 20  # bytes of one row
#: Paths of fields, and those names of a shape's columns that elements can have.
_XML_NAME = re.compile("[A-Za-z_][A-Za-z0-9_.-]*")


class DocumentWriter:
    """Turns one COPY stream into one document: ``head()``, ``feed(chunk)`` …, ``tail()``.

    ``fields`` are the document's, in its order; the leaves of a nested message must be adjacent.
    ``selected`` are the columns of the SELECT: the fields, preceded by the key if they lack it.
    ``keys`` is the set of the rows' keys. ``rows`` counts the rows that ``feed`` has returned. Not
    thread-safe, but ``feed`` may run in another thread: it spends its time outside the
    interpreter's lock.
    """

    content_type: str
    #: The suffix of its files' names.
    suffix: str
    #: What the format cannot hold exactly, for the receipt.
    loss = ""
    #: Whether members of messages in lists that are masked to null are in the file, as null.
    shows_nulls = False
    #: The most rows of a file; None if there is no limit.
    most_rows: int | None = None
    #: By kind, the type in which its columns are read: its name in SQL and in SQLAlchemy.
    types = COPY_TYPES
    #: Keyword arguments of asyncpg's ``copy_from_query``.
    copy_options: Mapping[str, str] = {"format": "binary"}

    def __init__(self, dataset: Dataset, fields: Sequence[Field]) -> None:
        if not fields:
            raise ValueError("an export needs at least one field")
        self.dataset = dataset
        self.fields = tuple(fields)
        self.selected = (dataset.key, *fields) if lacks_key(fields) else self.fields
        self.rows = 0
        self.keys = KeySet()
        self._kernel = Kernel(self._plan(), self.keys)
        self._rest = b""
        self._started = self._ended = False

    @property
    def file_name(self) -> str:
        """The name of the file, such as "customers.csv"."""
        return self.dataset.name + self.suffix

    @overload
    def sql(self, field: Field, column: str) -> str: ...
    @overload
    def sql(self, field: Field, column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]: ...
    def sql(self, field: Field, column: str | sa.ColumnElement[Any]) -> str | sa.ColumnElement[Any]:
        """What to SELECT for a field whose (masked) value is ``column``: SQL text or expression.

        It is a cast to the type that the writer reads, which is free if the column has that type.
        """
        name, kind = self.types[field.kind]
        return f"({column})::{name}" if isinstance(column, str) else sa.cast(column, kind)

    def too_long(
        self, field: Field, column: sa.ColumnElement[Any]
    ) -> sa.ColumnElement[bool] | None:
        """The condition under which a value is too long for the format; None if none is.

        ``column`` is the value as an expression, in the type that the writer reads.
        """
        return None

    def head(self) -> bytes:
        """The bytes before the first row."""
        return b""

    def feed(self, chunk: Data) -> bytes:
        """The rows that ``chunk``, the next bytes of the COPY stream, completes.

        Raises FormatError if a value cannot be printed (a date outside the years 1 to 9999), if a
        row takes more than 16 MiB, or if the stream is not a binary COPY of the writer's columns.
        """
        data = chunk if self._started else self._start(self._rest + chunk)
        output = [self._encode(data[at : at + _PIECE]) for at in range(0, len(data), _PIECE)]
        return self._join_output(output)

    def tail(self) -> bytes:
        """The bytes after the last row; FormatError if the stream has not ended."""
        if not self._ended:
            raise FormatError("the database's stream broke off")
        return b""

    def ending(self) -> Iterator[bytes]:
        """``tail`` in pieces, for formats whose tail may be large."""
        yield self.tail()

    @property
    def lossy_cells(self) -> Mapping[str, int]:
        """How many cells do not hold their values exactly, by column; columns with none are left
        out."""
        return {}

    def receipt(self, document: bytes) -> bytes:
        """The bytes that append ``document``, a JSON object, to the tail; b"" if unsupported."""
        return b""

    def _plan(self) -> bytes:
        raise NotImplementedError

    def _join_output(self, output: list[bytes]) -> bytes:
        return output[0] if len(output) == 1 else b"".join(output)

    def _start(self, data: bytes) -> bytes:
        if len(data) < _HEADER:
            self._rest = data
            return b""
        if not data.startswith(_SIGNATURE):
            raise FormatError("the database did not send a binary COPY")
        (extension,) = struct.unpack_from(">i", data, _HEADER - 4)
        if len(data) < _HEADER + extension:
            self._rest = data
            return b""
        self._started, self._rest = True, b""
        return data[_HEADER + extension :]

    def _encode(self, piece: Data) -> bytes:
        steps = self._kernel.encode(self._rest, piece)
        self.rows += sum(step.rows for step in steps)
        last = steps[-1]
        if last.status == Status.MALFORMED:
            raise self._malformed(last.detail)
        self._ended = self._ended or last.status == Status.END
        left = len(self._rest) + len(piece) - sum(step.consumed for step in steps)
        if self._ended or not left:
            self._rest = b""
        elif left <= len(piece):
            self._rest = bytes(piece[-left:])
        else:
            self._rest += piece
        self._check_size(len(self._rest))
        return last.output if len(steps) == 1 else b"".join(step.output for step in steps)

    def _malformed(self, column: int, rows: int = 0) -> FormatError:
        """The error of the row after ``rows`` more, in a column or in the row as a whole (-1)."""
        if column < 0:
            return FormatError("the database did not send the columns that were asked for")
        path = self.selected[column].path
        return FormatError(f"a value of '{path}' cannot be printed", row=self.rows + rows + 1)

    def _check_size(self, size: int) -> None:
        """Raise RequestTooLarge if an incomplete row already takes too many bytes."""
        if size > _MOST:
            raise RequestTooLarge(f"row {self.rows + 1} takes more than 16 MiB")


class CsvWriter(DocumentWriter):
    """RFC 4180 with LF and a header of the fields' paths; NULL is empty, an empty text is ""."""

    content_type = "text/csv; charset=utf-8"
    suffix = ".csv"
    #: Whether the file begins with a byte order mark, by which Excel recognises UTF-8.
    marked = False

    def head(self) -> bytes:
        """The header line."""
        mark = codecs.BOM_UTF8 if self.marked else b""
        return mark + ",".join(quote_cell(f.path) for f in self.fields).encode() + b"\n"

    def _plan(self) -> bytes:
        return csv_plan(self.fields)


def quote_cell(text: str) -> str:
    """A text as a cell of CSV."""
    return '"' + text.replace('"', '""') + '"' if any(c in text for c in '",\r\n') else text


class SafeCsvWriter(CsvWriter):
    """CSV for spreadsheets: text that one would run as a formula starts with an apostrophe.

    It is for reading only: importing such cells does not restore them. Numbers stay numbers.
    """

    def _plan(self) -> bytes:
        return csv_plan(self.fields, safe=True)


class NdjsonWriter(DocumentWriter):
    """One proto JSON object per line."""

    content_type = "application/x-ndjson"
    suffix = ".ndjson"
    shows_nulls = True

    def receipt(self, document: bytes) -> bytes:
        """A last line that cannot be mistaken for a record."""
        return b'{"@receipt":%s}\n' % document

    def _plan(self) -> bytes:
        return json_plan(self.fields, b"", b"\n")


class JsonWriter(DocumentWriter):
    """One array of proto JSON objects."""

    content_type = "application/json"
    suffix = ".json"
    shows_nulls = True

    def head(self) -> bytes:
        """The opening bracket."""
        return b"["

    def tail(self) -> bytes:
        """The closing bracket; FormatError if the stream has not ended."""
        return super().tail() + b"\n]\n"

    def _plan(self) -> bytes:
        return json_plan(self.fields, b",\n", b"")

    def _join_output(self, output: list[bytes]) -> bytes:
        first = not self._given
        rows = super()._join_output(output)
        self._given = self._given or bool(rows)
        return rows[1:] if first else rows

    _given = False


def check_xml_names(fields: Sequence[Field]) -> None:
    """Raise ValueInvalid for columns whose names are not valid in XML."""
    for field in fields:
        if not _XML_NAME.fullmatch(field.path):
            raise ValueInvalid.of(
                "shape", f"has the column '{field.path}', whose name is not valid in XML"
            )


class XmlWriter(DocumentWriter):
    """One element per row, within one for the dataset; NULLs are left out."""

    content_type = "application/xml"
    suffix = ".xml"

    def head(self) -> bytes:
        """The declaration and the root's opening tag."""
        return f"{XML_DECLARATION}\n<{self.dataset.name}>\n".encode()

    def tail(self) -> bytes:
        """The root's closing tag; FormatError if the stream has not ended."""
        return super().tail() + f"</{self.dataset.name}>\n".encode()

    def receipt(self, document: bytes) -> bytes:
        """A comment after the root; hyphens that would end it early are escaped, as JSON allows."""
        return b"<!-- penstock-receipt %s -->\n" % document.replace(b"--", b"-\\u002d")

    def _plan(self) -> bytes:
        check_xml_names(self.fields)
        return xml_plan(self.dataset, self.fields)
