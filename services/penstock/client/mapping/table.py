"""CSV files that distinguish NULL from the empty string (RFC 4180, PostgreSQL's convention).

The ``csv`` module cannot tell an empty value from a quoted empty one, so this is our own reader.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from penstock.client.mapping.errors import MappingError

#: One row of a file: NULL is None, the empty string is "".
Row = Sequence[str | None]

#: Characters in one row; more means that a quote is missing.
_MAX_ROW = 16 << 20


@dataclass(frozen=True, slots=True)
class Dialect:
    """How the files are written. ``encoding`` is a Python codec; a byte order mark is dropped."""

    delimiter: str = ","
    encoding: str = "utf-8-sig"


@dataclass(frozen=True, slots=True)
class Table:
    """A CSV file with its header read."""

    path: Path
    header: tuple[str, ...]
    dialect: Dialect

    def index(self, column: str) -> int:
        """The index of a column. Raises KeyError if there is none of that name."""
        try:
            return self.header.index(column)
        except ValueError:
            raise KeyError(column) from None

    def rows(self) -> Iterator[tuple[int, Row]]:
        """The rows after the header, each with the number of its first line, from 1.

        Raises MappingError, naming file and line, if the file is not CSV or a row has another
        number of values than the header.
        """
        records = _read_records(self.path, self.dialect)
        next(records)
        width = len(self.header)
        for line, values in records:
            if len(values) != width:
                if values == [None]:
                    continue  # an empty line
                raise MappingError(
                    f"{self.path.name}, line {line}: {len(values)} values where the header "
                    f"names {width} columns"
                )
            yield line, values


def open_table(path: Path, dialect: Dialect) -> Table:
    """Reads the header. Raises MappingError if there is no file or no valid header."""
    try:
        first = next(_read_records(path, dialect), None)
    except OSError as error:
        raise MappingError(f"{path}: {error.strerror}") from error
    if first is None:
        raise MappingError(f"{path.name} is empty; its first line must name the columns")
    header = [name or "" for name in first[1]]
    if "" in header or len(set(header)) < len(header):
        raise MappingError(f"{path.name}: the header must name every column, and each once")
    return Table(path, tuple(header), dialect)


def _read_records(path: Path, dialect: Dialect) -> Iterator[tuple[int, list[str | None]]]:
    mark = re.escape(dialect.delimiter)
    value = re.compile(rf'(?:"([^"]*(?:""[^"]*)*)"|([^"{mark}]*))({mark}|\Z)')
    encoding = "utf-8-sig" if dialect.encoding == "utf-8" else dialect.encoding
    try:
        with open(path, encoding=encoding, newline="") as file:
            for line, text in _read_texts(path, iter(file)):
                if '"' not in text:
                    yield line, [v or None for v in text.split(dialect.delimiter)]
                else:
                    yield line, list(_split_values(text, value, f"{path.name}, line {line}"))
    except UnicodeDecodeError as error:
        raise MappingError(f"{path.name} is not {dialect.encoding}: {error.reason}") from None


def _read_texts(path: Path, lines: Iterator[str]) -> Iterator[tuple[int, str]]:
    """The text of each record, without its line end: lines joined until the quotes balance."""
    number = 0
    for text in lines:
        number += 1
        first = number
        quotes = text.count('"')
        parts = [text]
        size = len(text)
        while quotes % 2:
            more = next(lines, None)
            if more is None or size > _MAX_ROW:
                raise MappingError(f"{path.name}, line {first}: the quoted value does not end")
            number += 1
            quotes += more.count('"')
            size += len(more)
            parts.append(more)
        yield first, _without_end("".join(parts) if len(parts) > 1 else text)


def _without_end(text: str) -> str:
    if text.endswith("\r\n"):
        return text[:-2]
    return text[:-1] if text.endswith(("\n", "\r")) else text


def _split_values(text: str, value: re.Pattern[str], where: str) -> Iterator[str | None]:
    at = 0
    while True:
        match = value.match(text, at)
        if match is None:
            raise MappingError(f"{where}: a quote within a value must be doubled, and it quoted")
        quoted, plain, mark = match.groups()
        yield quoted.replace('""', '"') if quoted is not None else plain or None
        if not mark:
            return
        at = match.end()
