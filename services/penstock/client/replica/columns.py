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

from penstock.client.record import to_proto_json
from penstock.client.stubs import Descriptor, FieldDescriptor, enum_labels, field_options

_TIMESTAMP = "google.protobuf.Timestamp"


@dataclass(frozen=True, slots=True)
class Kind:
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
    kind: Kind
    presence: bool
    nested: bool


class Shape:
    """The columns of a dataset's records, or of the wanted top-level fields."""

    def __init__(
        self,
        record_class: type[Message],
        key: str,
        wanted: Sequence[str] = (),
        *,
        sqlite: bool = True,
    ) -> None:
        """``wanted`` are field paths; of a nested one, the top-level field is kept.

        Raises ValueError for a name that the record does not have.
        """
        self._class = record_class
        self.key = key
        message: Descriptor = record_class.DESCRIPTOR
        by_name = {f.json_name: f for f in message.fields} | dict(message.fields_by_name)
        tops = [path.strip().partition(".")[0] for path in wanted if path.strip()]
        if unknown := [name for name in tops if name not in by_name]:
            raise ValueError(f"{message.name} has no field '{unknown[0]}'")
        shown = {by_name[name].name for name in (*tops, key)} if tops else set(by_name)
        self.columns = tuple(_make_column(f, sqlite) for f in message.fields if f.name in shown)

    def row(self, record: Any) -> tuple[Any, ...]:
        """The record's values, one for each column."""
        nested: Mapping[str, Any] = {}
        if any(c.nested for c in self.columns):
            nested = to_proto_json(record)
        return tuple(self._value(record, nested, column) for column in self.columns)

    def record(self, row: Sequence[Any]) -> Message:
        """The record of a row. Raises ValueError if a value does not fit its field."""
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
            json_format.ParseDict(nested, record)
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


def _column_kind(field: FieldDescriptor, sqlite: bool) -> Kind:
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


def _enum_kind(field: FieldDescriptor) -> Kind:
    numbers = enum_labels(field.enum_type)
    names = {number: label for label, number in reversed(numbers.items())}

    def load(text: str) -> int:
        return numbers[text] if text in numbers else int(text)

    return Kind("TEXT", "text", lambda number: names.get(number, str(number)), load)


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
    """SQLite takes NaN for NULL and drops the sign of a zero: these two are stored as bytes."""
    kept = not math.isnan(value) and (value != 0 or math.copysign(1, value) > 0)
    return value if kept else repr(value).encode()


def _load_bool(value: Any) -> bool:
    if value not in (0, 1):
        raise TypeError(f"{value!r} is neither true nor false")
    return bool(value)


def _load_double(value: Any) -> float:
    return float(value.decode() if isinstance(value, bytes) else value)


_TEXT = Kind("TEXT", "text", str, _check_text)
_JSON = Kind("TEXT", "jsonb", _dump_json, json.loads, "CAST({} AS jsonb)", "CAST({} AS text)")
_BYTES = Kind("BLOB", "bytea", bytes, bytes)
_DECIMAL = Kind("TEXT", "numeric", str, _check_text, "CAST({} AS numeric)", "CAST({} AS text)")
_DATE = Kind("TEXT", "date", str, _check_text, "CAST({} AS date)", "CAST({} AS text)")
_MOMENT = Kind(
    "TEXT",
    "timestamptz",
    _format_moment,
    _load_moment,
    "CAST({} AS timestamptz)",
    """to_char({} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')""",
)
_DOUBLE = Kind("REAL", "double precision", float, _load_double)
_SQLITE_DOUBLE = Kind("REAL", "double precision", _pack_double, _load_double)
_INTEGER = Kind("INTEGER", "bigint", int, int)
# SQLite has no integers this large.
_LARGE = Kind("TEXT", "numeric", str, int, "CAST({} AS numeric)", "CAST({} AS text)")
_BOOL = Kind("INTEGER", "boolean", bool, _load_bool)
