"""Records as messages and as rows: the one place that walks between the two.

A row is a sequence of values in the order of some fields, as the database holds them: canonical
(see ``values``), but LIST and MAP as JSON text and an etag as a number.
"""

from __future__ import annotations

import base64
import datetime as dt
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import orjson
from google.protobuf import json_format
from google.protobuf.message import Message

from penstockd.catalog.model import Dataset, Field, Kind

Setter = Callable[[Any, Any], None]
Getter = Callable[[Any], Any]

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND = dt.timedelta(microseconds=1)


class Codec:
    """Builds messages of a dataset from rows of ``fields``, and reads rows from messages."""

    def __init__(self, dataset: Dataset, fields: Sequence[Field]) -> None:
        self.fields = tuple(fields)
        self._class = dataset.message_class
        self._setters = [_setter(f) for f in self.fields]
        self._getters = [_getter(f) for f in self.fields]

    def message(self, row: Sequence[Any]) -> Message:
        """The message of a row. What is NULL stays unset."""
        message = self._class()
        for put, value in zip(self._setters, row, strict=True):
            if value is not None:
                put(message, value)
        return message

    def row(self, message: Message) -> list[Any]:
        """What a message holds in each field, unchecked: enums as numbers, decimals and dates as
        text, repeated fields as proto JSON data, None where an optional field is not set."""
        return [get(message) for get in self._getters]


def micros(moment: dt.datetime) -> int:
    """Microseconds since 1970 of an aware time, exactly."""
    return (moment - _EPOCH) // _MICROSECOND


def json_ready(field: Field, value: Any) -> Any:
    """A repeated field or map of a message as JSON-ready data in proto JSON form."""
    if field.element_message is not None:
        if field.kind is Kind.MAP:
            return {str(k): _message_json(v) for k, v in value.items()}
        return [_message_json(v) for v in value]
    assert field.element is not None
    element = field.element
    if field.kind is Kind.MAP:
        return {_map_key(k): _scalar_json(element, v) for k, v in value.items()}
    if element.kind is Kind.STRING:
        return list(value)
    return [_scalar_json(element, v) for v in value]


def decimal_text(value: Decimal) -> str:
    """All digits, never an exponent."""
    return format(value, "f")


def _map_key(key: Any) -> str:
    return ("true" if key else "false") if isinstance(key, bool) else str(key)


def _message_json(message: Message) -> Any:
    return json_format.MessageToDict(message, always_print_fields_with_no_presence=True)


def _scalar_json(field: Field, value: Any) -> Any:
    match field.kind:
        case Kind.ENUM:
            return _enum_name(field)[value]
        case Kind.INT64 | Kind.UINT64:
            return str(value)
        case Kind.BYTES:
            return base64.b64encode(value).decode()
        case Kind.TIMESTAMP:
            return _time(value).isoformat(timespec="microseconds").replace("+00:00", "Z")
    return value


def _scalar_value(field: Field, data: Any) -> Any:
    """What a repeated protobuf field or map takes, of JSON-ready data."""
    match field.kind:
        case Kind.ENUM:
            assert field.enum_values is not None
            return field.enum_values[data]
        case Kind.INT64 | Kind.UINT64:
            return int(data)
        case Kind.BYTES:
            return base64.b64decode(data)
        case Kind.FLOAT | Kind.DOUBLE:
            return float(data)
    return data


def _enum_name(field: Field) -> dict[int, str]:
    assert field.enum_values is not None
    return {number: name for name, number in field.enum_values.items()}


def _time(stamp: Any) -> dt.datetime:
    return _EPOCH + dt.timedelta(seconds=stamp.seconds, microseconds=stamp.nanos // 1000)


def _walk(steps: Sequence[str]) -> Callable[[Any], Any]:
    """From a record to the message that holds the leaf."""
    if not steps:
        return lambda record: record
    if len(steps) == 1:
        name = steps[0]
        return lambda record: getattr(record, name)

    def walk(record: Any) -> Any:
        for step in steps:
            record = getattr(record, step)
        return record

    return walk


def _setter(field: Field) -> Setter:
    name, holder = field.steps[-1], _walk(field.steps[:-1])
    top = len(field.steps) == 1
    if field.repeated:
        return _repeated_setter(field, name, holder)
    convert: Callable[[Any], Any] | None = None
    if field.path == "etag":
        convert = str
    elif field.kind is Kind.ENUM:
        assert field.enum_values is not None
        convert = dict(field.enum_values).__getitem__
    elif field.kind is Kind.DECIMAL:
        convert = decimal_text
    elif field.kind is Kind.DATE:
        convert = dt.date.isoformat
    elif field.kind is Kind.UINT64:
        convert = int
    elif field.kind is Kind.TIMESTAMP:

        def put_time(record: Any, value: dt.datetime) -> None:
            seconds, fraction = divmod(micros(value), 1_000_000)
            stamp = getattr(holder(record), name)
            stamp.seconds, stamp.nanos = seconds, fraction * 1000
            if not seconds and not fraction:
                stamp.SetInParent()

        return put_time
    if convert is None:
        if top:
            return lambda record, value: setattr(record, name, value)
        return lambda record, value: _put(holder(record), name, value)
    if top:
        return lambda record, value: setattr(record, name, convert(value))
    return lambda record, value: _put(holder(record), name, convert(value))


def _put(message: Any, name: str, value: Any) -> None:
    setattr(message, name, value)
    # A default value does not mark the nested message as present; the column does.
    message.SetInParent()


def _repeated_setter(field: Field, name: str, holder: Callable[[Any], Any]) -> Setter:
    element, is_map = field.element, field.kind is Kind.MAP

    def put(record: Any, text: str) -> None:
        data = orjson.loads(text)
        if not data:
            return
        target = getattr(holder(record), name)
        if element is None or element.kind is Kind.TIMESTAMP or (is_map):
            leaf = holder(record)
            json_format.ParseDict({name: data}, leaf)
        elif element.kind is Kind.STRING:
            target.extend(data)
        else:
            target.extend([_scalar_value(element, item) for item in data])

    return put


def _getter(field: Field) -> Getter:
    name, steps = field.steps[-1], field.steps[:-1]
    read = _leaf_getter(field, name)
    if not steps:
        return read
    walk, parents = _walk(steps), [_walk(steps[:i]) for i in range(len(steps))]

    def nested(record: Any) -> Any:
        for parent, step in zip(parents, steps, strict=True):
            if not parent(record).HasField(step):
                return None
        return read(walk(record))

    return nested


def _leaf_getter(field: Field, name: str) -> Getter:
    if field.repeated:
        return lambda message: json_ready(field, getattr(message, name))
    if field.kind is Kind.TIMESTAMP:
        return lambda message: _time(getattr(message, name)) if message.HasField(name) else None
    if field.presence:
        return lambda message: getattr(message, name) if message.HasField(name) else None
    return lambda message: getattr(message, name)
