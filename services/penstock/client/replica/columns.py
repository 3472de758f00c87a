"""A record as a row: a column for each top-level field, JSON for nested or repeated ones.

Both directions are exact: a record that was stored and read again has the same digest.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message

from penstock.client.json_messages import parse_message
from penstock.client.keys import find_key_fields, joins_key, key_of
from penstock.client.record_data import name_enums, to_dict
from penstock.client.stubs import Descriptor, FieldDescriptor, enum_labels, field_options

#: Holds the key as text where no field does: of a number, or of several parts.
KEY_COLUMN = "~key"
_TIMESTAMP = "google.protobuf.Timestamp"


@dataclass(frozen=True, slots=True)
class ColumnType:
    """How values of some fields are stored: the column's type in SQLite and in PostgreSQL.

    ``store`` converts a field's value for the column, ``load`` converts it back. PostgreSQL
    statements use ``write`` and ``read``, in which {} stands for the value and the column.
    """

    sqlite: str
    postgres: str
    store: Callable[[Any], Any]
    load: Callable[[Any], Any]
    write: str = "{}"
    read: str = "{}"


@dataclass(frozen=True, slots=True)
class Column:
    """The column of one field. ``nested``: it holds the field's proto JSON."""

    name: str
    json_name: str
    kind: ColumnType
    presence: bool
    nested: bool


class TableShape:
    """The columns of a dataset's records, or of the wanted top-level fields."""

    def __init__(
        self,
        record_class: type[Message],
        wanted: Sequence[str] = (),
        *,
        sqlite: bool = True,
    ) -> None:
        """``wanted`` are field paths; of a nested one, the top-level field is kept.

        Raises ValueError for a name that the record does not have.
        """
        self._class = record_class
        message: Descriptor = record_class.DESCRIPTOR
        self._key_fields = find_key_fields(message)
        names = [f.name for f in self._key_fields]
        self._joined = joins_key(self._key_fields)
        #: The name of the column that holds the key as text.
        self.key = KEY_COLUMN if self._joined else names[0]
        by_name = {f.json_name: f for f in message.fields} | dict(message.fields_by_name)
        tops = [path.strip().partition(".")[0] for path in wanted if path.strip()]
        if unknown := [name for name in tops if name not in by_name]:
            raise ValueError(f"{message.name} has no field '{unknown[0]}'")
        shown = {by_name[name].name for name in (*tops, *names)} if tops else set(by_name)
        #: Those of the record's fields, and those of a row.
        self.columns = tuple(_make_column(f, sqlite) for f in message.fields if f.name in shown)
        key_column = Column(KEY_COLUMN, KEY_COLUMN, _TEXT, presence=False, nested=False)
        self.stored = (*self.columns, key_column) if self._joined else self.columns

    def key_of(self, record: Message) -> str:
        """The text of a record's key."""
        return key_of(record, self._key_fields)

    def row(self, record: Any) -> tuple[Any, ...]:
        """The record's values, one for each column of a row."""
        nested: Mapping[str, Any] = {}
        if any(c.nested for c in self.columns):
            nested = to_dict(record)
        values = tuple(self._value(record, nested, column) for column in self.columns)
        return (*values, self.key_of(record)) if self._joined else values

    def record(self, row: Sequence[Any]) -> Message:
        """The record of the values of its fields. Raises ValueError if one does not fit."""
        record: Any = self._class()
        nested = {}
        for column, value in zip(self.columns, row, strict=True):
            if value is None:
                continue
            try:
                loaded = column.kind.load(value)
                if column.nested:
                    nested[column.json_name] = loaded
                elif column.kind is _MOMENT:
                    getattr(record, column.name).FromDatetime(loaded)
                else:
                    setattr(record, column.name, loaded)
            except (TypeError, AttributeError, ArithmeticError, UnicodeError) as error:
                raise ValueError(f"{column.name}: {error}") from None
        try:
            record.MergeFrom(parse_message(name_enums(nested, self._class.DESCRIPTOR), self._class))
        except json_format.ParseError as error:
            raise ValueError(str(error)) from None
        return record  # type: ignore[no-any-return]  # its class is known only at run time

    def _value(self, record: Any, nested: Mapping[str, Any], column: Column) -> Any:
        if column.nested:
            value = nested.get(column.json_name)
            return None if value is None else column.kind.store(value)
        if column.presence and not record.HasField(column.name):
            return None
        return column.kind.store(getattr(record, column.name))


def _make_column(field: FieldDescriptor, sqlite: bool) -> Column:
    whole = field.message_type is not None and field.message_type.full_name != _TIMESTAMP
    nested = bool(whole or field.is_repeated)
    kind = _JSON if nested else _column_kind(field, sqlite)
    return Column(field.name, field.json_name, kind, field.has_presence, nested)


def _column_kind(field: FieldDescriptor, sqlite: bool) -> ColumnType:
    if field.message_type is not None:
        return _MOMENT
    if field.enum_type is not None:
        return _enum_kind(field)
    if field.type == field.TYPE_BYTES:
        return _BYTES
    if field.cpp_type == field.CPPTYPE_STRING:
        return {"decimal": _DECIMAL, "date": _DATE}.get(
            field_options(field).WhichOneof("encoding") or "", _TEXT
        )
    match field.cpp_type:
        case field.CPPTYPE_BOOL:
            return _BOOL
        case field.CPPTYPE_FLOAT | field.CPPTYPE_DOUBLE:
            return _SQLITE_DOUBLE if sqlite else _DOUBLE
        case field.CPPTYPE_UINT64:
            return _LARGE
    return _INTEGER


def _enum_kind(field: FieldDescriptor) -> ColumnType:
    numbers = enum_labels(field.enum_type)
    names = {number: label for label, number in reversed(numbers.items())}

    def load(text: str) -> int:
        return numbers[text] if text in numbers else int(text)

    return ColumnType("TEXT", "text", lambda number: names.get(number, str(number)), load)


def _check_text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a text")
    return value


def _dump_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _format_moment(stamp: Any) -> str:
    moment: datetime = stamp.ToDatetime()
    return moment.isoformat(timespec="microseconds") + "Z"


def _load_moment(text: str) -> datetime:
    return datetime.fromisoformat(_check_text(text).removesuffix("Z")).replace(tzinfo=UTC)


def _pack_double(value: float) -> float | bytes:
    """SQLite stores NaN as NULL, so the replica stores NaN as bytes."""
    return repr(value).encode() if math.isnan(value) else value


def _load_bool(value: Any) -> bool:
    if value not in (0, 1):
        raise TypeError(f"{value!r} is neither true nor false")
    return bool(value)


def _load_double(value: Any) -> float:
    return float(value.decode() if isinstance(value, bytes) else value)


_TEXT = ColumnType("TEXT", "text", str, _check_text)
_JSON = ColumnType("TEXT", "jsonb", _dump_json, json.loads, "CAST({} AS jsonb)", "CAST({} AS text)")
_BYTES = ColumnType("BLOB", "bytea", bytes, bytes)
_DECIMAL = ColumnType(
    "TEXT", "numeric", str, _check_text, "CAST({} AS numeric)", "CAST({} AS text)"
)
_DATE = ColumnType("TEXT", "date", str, _check_text, "CAST({} AS date)", "CAST({} AS text)")
_MOMENT = ColumnType(
    "TEXT",
    "timestamptz",
    _format_moment,
    _load_moment,
    "CAST({} AS timestamptz)",
    """to_char({} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')""",
)
_DOUBLE = ColumnType("REAL", "double precision", float, _load_double)
_SQLITE_DOUBLE = ColumnType("REAL", "double precision", _pack_double, _load_double)
_INTEGER = ColumnType("INTEGER", "bigint", int, int)
# SQLite has no integers this large.
_LARGE = ColumnType("TEXT", "numeric", str, int, "CAST({} AS numeric)", "CAST({} AS text)")
_BOOL = ColumnType("INTEGER", "boolean", bool, _load_bool)
