"""Searches entries by AIP-160 filters over their fields, newest first."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Date,
    DateTime,
    LargeBinary,
    MetaData,
    Select,
    Table,
    Text,
    cast,
    func,
    select,
)
from sqlalchemy.dialects.postgresql import JSON

from penstockd.audit.shown import StoredShown
from penstockd.catalog import Field, FieldClass, Kind
from penstockd.errors import ValueInvalid
from penstockd.query import And, Expression, Names, Wrap, compile_filter, parse_filter
from penstockd.query.filter import Comparison
from penstockd.store.database import Connection
from penstockd.store.sql import Statement, compile_statement

_C = Text(collation="C")

#: The table of entries, without columns that searches do not read.
ENTRIES = Table(
    "audit_entry",
    MetaData(schema="hub"),
    Column("entry_id", BigInteger, nullable=False),
    Column("day", Date, nullable=False),
    Column("entry_time", DateTime(timezone=True), nullable=False),
    Column("phase", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("trace_id", Text),
    Column("consumer_id", Text),
    Column("credential_id", Text),
    Column("policy_revision", BigInteger, nullable=False),
    Column("method", Text, nullable=False),
    Column("surface", Text),
    Column("dataset", _C),
    Column("record_key", _C),
    Column("query", JSON),
    Column("row_count", BigInteger),
    Column("byte_count", BigInteger),
    Column("receipt_id", Text),
    Column("outcome", Text, nullable=False),
    Column("peer", Text),
    Column("shown", LargeBinary),
    Column("low_key", _C),
    Column("high_key", _C),
    Column("keys", LargeBinary),
)

_KINDS = {"entry_time": Kind.TIMESTAMP}
#: The columns that filters may name, up to ``peer``; callers know ``entry_time`` as "time".
_SEARCHED = [c for c in ENTRIES.c if c.name not in ("day", "shown", "low_key", "high_key", "keys")]


def _make_field(column: Column[Any]) -> Field:
    name = "time" if column.name == "entry_time" else column.name
    head, *tail = name.split("_")
    kind = Kind.INT64 if isinstance(column.type, BigInteger) else Kind.STRING
    return Field(
        path=name,
        json_path=head + "".join(part.capitalize() for part in tail),
        kind=_KINDS.get(column.name, kind),
        field_class=FieldClass.INTERNAL,
        nullable=bool(column.nullable),
        presence=bool(column.nullable),
    )


@dataclass(frozen=True, slots=True)
class Span:
    """From ``start`` on and before ``end``; None leaves an end open."""

    start: dt.datetime | None = None
    end: dt.datetime | None = None

    def __str__(self) -> str:
        ends = (t.isoformat() if t is not None else "" for t in (self.start, self.end))
        return "/".join(ends).strip("/")

    def check(self) -> None:
        """Raise ValueInvalid if it ends before it starts."""
        if self.start is not None and self.end is not None and self.end < self.start:
            raise ValueInvalid.of("end_time", "is before start_time")

    @property
    def days(self) -> tuple[dt.date, dt.date]:
        """Its first and its last day, in UTC."""
        start, end = max(self.start or EARLIEST, EARLIEST), min(self.end or LATEST, LATEST)
        return start.astimezone(dt.UTC).date(), end.astimezone(dt.UTC).date()


class EntryNames:
    """The names in a filter of entries (see ``query.Names``)."""

    def __init__(self) -> None:
        self._columns = {_make_field(c): c for c in _SEARCHED}
        named = [(n, f) for f in self._columns for n in (f.json_path, f.path)]
        self._by_name = dict(named)

    def fields(self) -> Sequence[Field]:
        """All fields."""
        return tuple(self._columns)

    def field(self, path: str) -> Field | None:
        """The field with a name."""
        return self._by_name.get(path)

    def members(self, field: Field) -> Sequence[Field]:
        """None: entries contain no messages."""
        return field.members

    def column(self, field: Field) -> ColumnElement[Any]:
        """The column of a field; the query as text."""
        column = self._columns[field]
        return cast(column, Text()) if field.path == "query" else column

    def follow(self, alias: str) -> tuple[Names, Wrap] | None:
        """None: entries refer to nothing."""
        return None


NAMES = EntryNames()

#: No entry is earlier or later.
EARLIEST = dt.datetime(1970, 1, 2, tzinfo=dt.UTC)
LATEST = dt.datetime(9999, 1, 1, tzinfo=dt.UTC)


@dataclass(frozen=True, slots=True)
class Found:
    """An entry that a search returns; ``values`` by column, ``rule`` describes what was shown."""

    values: dict[str, Any]
    rule: StoredShown | None


@dataclass(frozen=True, slots=True)
class Search:
    """The conditions of a search: a filter, and times from ``start`` on and before ``end``."""

    filter: str = ""
    start: dt.datetime | None = None
    end: dt.datetime | None = None

    def statement(self, limit: int, before: int | None) -> Statement:
        """At most ``limit`` entries with ids below ``before``. Raises FilterError, FieldUnknown."""
        columns = [*_SEARCHED, ENTRIES.c.shown]
        wanted: Select[Any] = restrict_time(select(*columns), self.start, self.end)
        if self.filter.strip():
            expression = parse_filter(self.filter)
            wanted = wanted.where(compile_filter(expression, NAMES), *_by_index(expression))
        if before is not None:
            wanted = wanted.where(ENTRIES.c.entry_id < before)
        return compile_statement(wanted.order_by(ENTRIES.c.entry_id.desc()).limit(limit))


def _by_index(expression: Expression) -> Iterator[ColumnElement[bool]]:
    """Conditions that let a filter on a record's key use the index of keys. It holds hashes, since
    a caller may send a key of any length."""
    terms = expression.terms if isinstance(expression, And) else (expression,)
    for term in terms:
        if isinstance(term, And):
            yield from _by_index(term)
        elif isinstance(term, Comparison) and term.name in ("record_key", "recordKey"):
            literal = term.literal
            if term.comparator == "=" and not (literal.leading or literal.trailing):
                column = ENTRIES.c.record_key
                yield func.hashtextextended(column, 0) == func.hashtextextended(literal.text, 0)


def restrict_time(
    statement: Select[Any], start: dt.datetime | None, end: dt.datetime | None
) -> Select[Any]:
    """Restrict a statement to a time span, and to the partitions of its days."""
    first, last = days_of(start or EARLIEST, end or LATEST)
    if start is not None:
        statement = statement.where(ENTRIES.c.entry_time >= start, ENTRIES.c.day >= first)
    if end is not None:
        statement = statement.where(ENTRIES.c.entry_time < end, ENTRIES.c.day <= last)
    return statement


def days_of(start: dt.datetime, end: dt.datetime) -> tuple[dt.date, dt.date]:
    """The first and the last day whose partitions may hold entries of a time span."""
    day = dt.timedelta(days=1)
    return (max(start, EARLIEST) - day).date(), (min(end, LATEST) + day).date()


async def find_entries(
    connection: Connection, search: Search, limit: int, before: int | None
) -> list[Found]:
    """The entries, newest first. Raises FilterError, FieldUnknown."""
    statement = search.statement(limit, before)
    rows = await connection.fetch(statement.text, *statement.arguments())
    rules = await read_rules(connection, [row["shown"] for row in rows])
    return [Found(dict(row), rules.get(row["shown"])) for row in rows]


async def read_rules(
    connection: Connection, digests: Sequence[bytes | None]
) -> dict[bytes | None, StoredShown]:
    """The stored rules by digest."""
    wanted = list({d for d in digests if d is not None})
    if not wanted:
        return {}
    rows = await connection.fetch(
        "SELECT digest, content FROM hub.audit_shown WHERE digest = ANY ($1)", wanted
    )
    return {row[0]: StoredShown.parse(row[1]) for row in rows}
