"""The one printer of the command line: prints a command's results in the chosen format.

Names are those of the model (``billing_address.city``) in every format, as in filters, field lists
and CSV files; every command that reads JSON accepts them. JSON, YAML and NDJSON contain whole
documents; a table and CSV contain the columns that the command names. Values in a table are for
people, all others are exact.
"""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

from penstock.client.cli.options import Format, chosen_format

#: What is printed: a protobuf message, or a document with names of the model.
Row = Any

_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
#: Words that YAML 1.1 reads as something other than names.
_YAML_WORDS = {"null", "true", "false", "yes", "no", "on", "off", "y", "n"}


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table or of CSV: a path in the document, and its text for people."""

    path: str
    #: Returns the text in a table from the whole document; by default that of the value.
    show: Callable[[Mapping[str, Any]], str] | None = None

    def value(self, document: Mapping[str, Any]) -> Any:
        """The value in the document; None if it is not set."""
        found: Any = document
        for step in self.path.split("."):
            found = found.get(step) if isinstance(found, Mapping) else None
        return found

    def text(self, document: Mapping[str, Any]) -> str:
        """The value for people."""
        return _for_people(self.value(document)) if self.show is None else self.show(document)


def print_rows(
    rows: Iterable[Row],
    columns: Sequence[str | Column],
    *,
    default: Format = Format.table,
    form: Format | None = None,
) -> None:
    """Print many rows; those of NDJSON and CSV as they arrive, others when all are known.

    ``form`` is the format for commands whose ``--format`` is that of a file.
    """
    form, parts = form or chosen_format(default), [_make_column(c) for c in columns]
    if form in (Format.ndjson, Format.csv):
        RowPrinter(parts, sys.stdout, form).write(rows)
    elif form is Format.table:
        from penstock.client.cli.tables import print_table

        documents = (document_of(row, defaults=True) for row in rows)
        print_table([c.path for c in parts], ([c.text(d) for c in parts] for d in documents))
    else:
        _write_text(sys.stdout, _format_whole([document_of(row) for row in rows], form))


def print_document(row: Row, *, default: Format = Format.json) -> None:
    """Print one row with everything in it; a table has a line for each value."""
    form = chosen_format(default)
    if form is Format.table:
        from penstock.client.cli.tables import print_table

        flat = _flatten_document(document_of(row, defaults=True))
        print_table(["name", "value"], ([name, _for_people(value)] for name, value in flat.items()))
    else:
        _write_text(sys.stdout, _format_document(row, form))


def print_outcome(row: Row, text: str | Iterable[str], form: Format | None = None) -> None:
    """Print what a command has done: lines for people, or a document in any other format.

    ``form`` is the format for commands whose ``--format`` is that of a file.
    """
    form = form or chosen_format(Format.table)
    if form is not Format.table:
        _write_text(sys.stdout, _format_document(row, form))
        return
    lines = [text] if isinstance(text, str) else text
    _write_text(sys.stdout, "".join(f"{line}\n" for line in lines))


class RowPrinter:
    """Prints rows of a stream, which may have no end: documents a line in JSON and NDJSON."""

    def __init__(self, columns: Sequence[Column], file: IO[str], form: Format) -> None:
        self._columns, self._file, self._form = columns, file, form
        # A file that is continued has its header already.
        self._header = form is Format.csv and not (file is not sys.stdout and file.tell())

    def write(self, rows: Iterable[Row]) -> None:
        """Print rows, and flush."""
        if self._header:
            self._file.write(_csv_line(c.path for c in self._columns))
            self._header = False
        for row in rows:
            self._file.write(self._line(row))
        self._file.flush()

    def _line(self, row: Row) -> str:
        if self._form is Format.csv:
            document = document_of(row, defaults=True)
            return _csv_line(_format_exactly(c.value(document)) for c in self._columns)
        if self._form is Format.table:
            document = document_of(row, defaults=True)
            return "\t".join(_one_cell(c.text(document)) for c in self._columns) + "\n"
        if self._form is Format.yaml:
            return "---\n" + _format_whole(document_of(row), Format.yaml)
        return json.dumps(document_of(row), ensure_ascii=False) + "\n"


def document_of(row: Row, *, defaults: bool = False) -> dict[str, Any]:
    """The document of a message, with the model's names; a document is returned as it is."""
    if isinstance(row, dict):
        return row
    from penstock.client.record import to_proto_json

    return to_proto_json(
        row, preserving_proto_field_name=True, always_print_fields_with_no_presence=defaults
    )


def _format_document(row: Row, form: Format) -> str:
    if form is Format.csv:
        flat = _flatten_document(document_of(row, defaults=True))
        return _csv_line(flat) + _csv_line(map(_format_exactly, flat.values()))
    return _format_whole(document_of(row), form)


def _make_column(given: str | Column) -> Column:
    return given if isinstance(given, Column) else Column(given)


def _for_people(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list) and not any(isinstance(item, list | dict) for item in value):
        return ", ".join(map(_for_people, value))
    return _format_exactly(value)


def _one_cell(text: str) -> str:
    """The text without line ends, tabs and control characters; spaces at its end remain."""
    return "".join(c if c.isprintable() else " " for c in text)


def _format_exactly(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _flatten_document(document: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values of a document by path; lists and Structs are values."""
    from penstock.client.record import JsonObject

    found: dict[str, Any] = {}
    for name, value in document.items():
        if isinstance(value, Mapping) and value and not isinstance(value, JsonObject):
            found |= _flatten_document(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found


def _format_whole(value: Any, form: Format) -> str:
    if form is Format.yaml:
        return "".join(f"{line}\n" for line in _format_yaml(value))
    if form is Format.ndjson:
        return json.dumps(value, ensure_ascii=False) + "\n"
    return json.dumps(value, ensure_ascii=False, indent=2) + "\n"


def _csv_line(cells: Iterable[str]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()


def _format_yaml(value: Any) -> Iterator[str]:
    """The lines of a value in YAML; scalars are JSON, which YAML includes."""
    if isinstance(value, Mapping) and value:
        for name, item in value.items():
            yield from _yaml_member(f"{_yaml_name(str(name))}:", item)
    elif isinstance(value, list) and value:
        for item in value:
            first, *rest = _format_yaml(item)
            yield f"- {first}"
            yield from (f"  {line}" for line in rest)
    else:
        yield _yaml_scalar(value)


def _yaml_member(name: str, item: Any) -> Iterator[str]:
    if isinstance(item, Mapping | list) and item:
        yield name
        yield from (f"  {line}" for line in _format_yaml(item))
    else:
        yield f"{name} {_yaml_scalar(item)}"


def _yaml_name(name: str) -> str:
    plain = _PLAIN_NAME.fullmatch(name) and name.lower() not in _YAML_WORDS
    return name if plain else _yaml_scalar(name)


def _yaml_scalar(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    # YAML takes fewer characters as they are than JSON does.
    return "".join(c if c.isprintable() else _yaml_escape(ord(c)) for c in text)


def _yaml_escape(code: int) -> str:
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def _write_text(file: IO[str], text: str) -> None:
    file.write(text)
    file.flush()
