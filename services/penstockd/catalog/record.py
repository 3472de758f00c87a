"""Records as messages and as rows: the one place that converts between the two.

A row is a sequence of values for some fields, as in the database: canonical (see ``values``), but
LIST, MAP and STRUCT as JSON text and an etag as a number.
"""

from __future__ import annotations

import base64
import datetime as dt
import math
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import orjson
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from penstock.client.json_messages import parse_message
from penstockd.catalog.keys import key_reader
from penstockd.catalog.model import Dataset, Field, Kind
from penstockd.catalog.structs import read_struct, struct_wire
from penstockd.errors import RecordUnreadable
from penstockd.floats import name_odd_float

Convert = Callable[[Any], Any]
Getter = Callable[[Any], Any]
#: The errors of making a message with values that are not valid in the model.
UNREADABLE = (AttributeError, KeyError, TypeError, ValueError, json_format.ParseError)

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
#: Seconds since then at the begin of year 1 and at the end of year 9999.
_FIRST_SECOND, _LAST_SECOND = -62_135_596_800, 253_402_300_799


class Codec:
    """Builds messages of a dataset from rows of ``fields``, and reads rows from messages."""

    def __init__(self, dataset: Dataset, fields: Sequence[Field]) -> None:
        self.fields = tuple(fields)
        self._dataset = dataset
        self._converts = [
            (i, convert) for i, f in enumerate(fields) if (convert := _to_protobuf(f, dataset))
        ]
        self._shape = _RecordShape(dataset.message_type, fields, 0)
        self._getters = [make_getter(f) for f in fields]
        self._json = [i for i, f in enumerate(fields) if f.is_json]

    def message(self, row: Sequence[Any]) -> Message:
        """The message of a row. A NULL stays unset, and so does a message of which all fields are
        NULL.

        Raises RecordUnreadable if a value is not valid in the model.
        """
        values = list(row)
        try:
            for i, convert in self._converts:
                if values[i] is not None:
                    values[i] = convert(values[i])
            return self._shape.build(values)
        except UNREADABLE as exc:
            raise explain_unreadable(self._dataset, self.fields, row) or exc from exc

    def reply_row(self, row: Sequence[Any]) -> Sequence[Any]:
        """The values of a row that a reply shows: all."""
        return row

    def json_size(self, row: Sequence[Any]) -> int:
        """Characters of JSON in a row. They dominate the time that building a message takes."""
        return sum(len(row[i]) for i in self._json if row[i] is not None)

    def row(self, message: Message) -> list[Any]:
        """The value of each field in a message, unchecked: enums as numbers, decimals and dates as
        text, times that no datetime holds as text, repeated fields and Structs as proto JSON data,
        None where an optional field is not set."""
        return [get(message) for get in self._getters]


def explain_unreadable(
    dataset: Dataset, fields: Sequence[Field], row: Sequence[Any], key: str = ""
) -> RecordUnreadable | None:
    """The error for a row that cannot become a record; None if each of its values can.

    It names the first value that the model cannot express, with the record's ``key``, by default
    that of the row if it has one.
    """
    if not key and set(dataset.key_fields) <= set(fields):
        key = key_reader(dataset, fields)(row)
    for field, value in zip(fields, row, strict=True):
        if value is None:
            continue
        try:
            convert = _to_protobuf(field, dataset)
            converted = value if convert is None else convert(value)
            _RecordShape(dataset.message_type, [field], 0).build([converted])
        except UNREADABLE:
            return RecordUnreadable(dataset.name, key, field.path, repr(value))
    return None


class _RecordShape:
    """One message of a record: which values are its own, and which belong to messages within it."""

    def __init__(self, message: Descriptor, fields: Sequence[Field], depth: int) -> None:
        self._class = message_factory.GetMessageClass(message)
        steps = [f.steps[depth:] for f in fields]
        self._own = [(s[0], i) for i, s in enumerate(steps) if len(s) == 1]
        self._nested: list[tuple[str, list[int], _RecordShape]] = []
        for name in dict.fromkeys(s[0] for s in steps if len(s) > 1):
            places = [i for i, s in enumerate(steps) if len(s) > 1 and s[0] == name]
            inner = message.fields_by_name[name].message_type
            assert inner is not None, "a path goes through messages only"
            shape = _RecordShape(inner, [fields[i] for i in places], depth + 1)
            self._nested.append((name, places, shape))

    def build(self, values: Sequence[Any]) -> Message:
        """Build the message from those of its values that are not None."""
        own = {n: values[i] for n, i in self._own if values[i] is not None}
        for name, places, shape in self._nested:
            within = [values[i] for i in places]
            if any(v is not None for v in within):
                own[name] = shape.build(within)
        return self._class(**own)


def holds_its_message(field: Field) -> bool:
    """Whether a nested message that is present always has a value in this leaf, even an empty one,
    so that ``Codec`` never omits the message if the leaf is among its fields."""
    return not field.presence and field.kind is not Kind.DATE


def item_counter(field: Field) -> Callable[[Message], int]:
    """A function that counts the items of a repeated field or map of a record, with those of lists
    within them."""
    *parents, name = field.steps
    nested = field.element_message is not None and any(
        f.is_repeated or f.message_type is not None for f in field.element_message.fields
    )

    def count(record: Message) -> int:
        for step in parents:
            record = getattr(record, step)
        items = getattr(record, name)
        if not nested:
            return len(items)
        values = items.values() if field.kind is Kind.MAP else items
        return len(items) + sum(map(_items_within, values))

    return count


def byte_counter(field: Field) -> Callable[[Message], int]:
    """The bytes of a Struct of a record."""
    walk, name = _make_walk(field.steps[:-1]), field.steps[-1]
    return lambda record: int(getattr(walk(record), name).ByteSize())


def _items_within(message: Message) -> int:
    """The items of all lists and maps of a message and of the messages within it."""
    count = 0
    for field, value in message.ListFields():
        if field.is_repeated:
            count += len(value)
            if field.message_type is not None and not field.message_type.GetOptions().map_entry:
                count += sum(map(_items_within, value))
        elif field.message_type is not None:
            count += _items_within(value)
    return count


def seconds_and_micros(moment: dt.datetime) -> tuple[int, int]:
    """Whole seconds since 1970 of an aware time, rounded down, and the remaining microseconds."""
    since = moment - _EPOCH
    return since.days * 86400 + since.seconds, since.microseconds


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


def load_list(text: str) -> list[Any]:
    """The items of a list in JSON. Raises TypeError for anything else: an object would look like
    the list of its names."""
    data = orjson.loads(text)
    if not isinstance(data, list):
        raise TypeError("not a list")
    return data


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
            # An image of an earlier model may have a number that has no name any more.
            return _enum_name(field).get(value, value)
        case Kind.INT64 | Kind.UINT64:
            return str(value)
        case Kind.BYTES:
            return base64.b64encode(value).decode()
        case Kind.FLOAT | Kind.DOUBLE if not math.isfinite(value):
            return name_odd_float(value)
        case Kind.TIMESTAMP:
            return time_of(value)
    return value


def _to_protobuf(field: Field, dataset: Dataset) -> Convert | None:
    """A function from a row's value to one for the message's constructor; None if they are the
    same."""
    if field.is_etag:
        return str
    match field.kind:
        case Kind.ENUM if field.enum_names is not None:
            return dict(field.enum_values or {}).__getitem__
        case Kind.DECIMAL:
            return decimal_text
        case Kind.DATE:
            return dt.date.isoformat
        case Kind.UINT64:
            return int
        case Kind.TIMESTAMP:
            return _timestamp_to_protobuf(dataset)
        case Kind.STRUCT:
            made = message_factory.GetMessageClass(_message_of(dataset, "google.protobuf.Struct"))
            return lambda text: made.FromString(struct_wire(text))
        case Kind.LIST | Kind.MAP:
            return _repeated_to_protobuf(field, dataset)
    return None


def _timestamp_to_protobuf(dataset: Dataset) -> Convert:
    """A function that converts times by hand, since the constructor takes 3 µs for a datetime. It
    keeps the latest result, since the rows of an import share their times."""
    made = message_factory.GetMessageClass(_message_of(dataset, "google.protobuf.Timestamp"))
    latest: tuple[dt.datetime | None, Message | None] = (None, None)

    def convert(value: dt.datetime) -> Message:
        nonlocal latest
        kept, message = latest
        if kept is not value or message is None:
            seconds, micros = seconds_and_micros(value)
            message = made(seconds=seconds, nanos=micros * 1000)
            latest = (value, message)
        return message

    return convert


def _message_of(dataset: Dataset, name: str) -> Descriptor:
    """A message of protobuf's library, as the dataset's descriptors have it."""
    return dataset.message_type.file.pool.FindMessageTypeByName(name)


def _repeated_to_protobuf(field: Field, dataset: Dataset) -> Convert:
    if field.kind is Kind.LIST and field.element and field.element.kind in _AS_IN_JSON:
        return load_list
    holder: Descriptor = dataset.message_type
    for step in field.steps[:-1]:
        inner = holder.fields_by_name[step].message_type
        assert inner is not None, "a path goes through messages only"
        holder = inner
    holder_class, name = message_factory.GetMessageClass(holder), field.steps[-1]
    empty: Any = {} if field.kind is Kind.MAP else ()

    def convert(text: str) -> Any:
        data = orjson.loads(text)
        if not data:
            return empty  # the message that holds it is present
        return getattr(parse_message({name: data}, holder_class), name)

    return convert


#: Kinds whose proto JSON suits a message's constructor.
_AS_IN_JSON = (Kind.STRING, Kind.ENUM, Kind.BOOL, Kind.INT32, Kind.UINT32, Kind.DECIMAL, Kind.DATE)


def _enum_name(field: Field) -> dict[int, str]:
    assert field.enum_values is not None
    return {number: name for name, number in field.enum_values.items()}


def _read_time(stamp: Any) -> dt.datetime | str:
    """The time of a message of type Timestamp; a text if no datetime holds it."""
    seconds, nanos = stamp.seconds, stamp.nanos
    if not 0 <= nanos < 1_000_000_000 or not _FIRST_SECOND <= seconds <= _LAST_SECOND:
        return f"{seconds} s and {nanos} ns"
    moment = _EPOCH + dt.timedelta(seconds=seconds, microseconds=nanos // 1000)
    return f"{_print_time(moment)[:-1]}{nanos % 1000:03}Z" if nanos % 1000 else moment


def time_of(stamp: Any) -> str:
    """The text of a message of type Timestamp: six digits of a second, or nine if it needs them."""
    moment = _read_time(stamp)
    return moment if isinstance(moment, str) else _print_time(moment)


def _print_time(moment: dt.datetime) -> str:
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _make_walk(steps: Sequence[str]) -> Callable[[Any], Any]:
    """A function from a record to the message that contains the leaf."""
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


def make_getter(field: Field) -> Getter:
    """A function from a record's message to the value of a field, in the form of ``Codec.row``."""
    name, steps = field.steps[-1], field.steps[:-1]
    read = _leaf_getter(field, name)
    if not steps:
        return read
    walk, parents = _make_walk(steps), [_make_walk(steps[:i]) for i in range(len(steps))]

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
        return lambda message: (
            _read_time(getattr(message, name)) if message.HasField(name) else None
        )
    if field.kind is Kind.STRUCT:
        return lambda message: (
            read_struct(getattr(message, name)) if message.HasField(name) else None
        )
    if field.presence:
        return lambda message: getattr(message, name) if message.HasField(name) else None
    return lambda message: getattr(message, name)
