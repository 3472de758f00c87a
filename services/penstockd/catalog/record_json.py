"""One record as one JSON object: the bytes that an export in NDJSON has for it.

Every surface writes a record like this. What the caller may not see is absent; what it may see is
always there, ``null`` if it is unset or masked to null. A nested message without any value is
``null`` as a whole.
"""

from __future__ import annotations

import base64
import itertools
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import orjson
from google.protobuf.message import Message

from penstockd.catalog.element_json import data_text, many_writer, struct_text
from penstockd.catalog.member_nulls import find_null_items
from penstockd.catalog.model import Dataset, Field, Kind
from penstockd.catalog.record import time_of
from penstockd.floats import format_float, name_odd_float

#: A value that is not None -> what ``orjson`` writes for it.
Convert = Callable[[Any], Any]
#: A message -> what ``orjson`` writes for one of its fields.
Get = Callable[[Any], Any]


class RecordJson:
    """Writes records of a dataset, of which it shows ``fields``, in the order of the schema.

    ``nulls`` are the fields, and the members of messages in lists and maps, that are shown as null
    whatever a message holds; ``hidden`` are those that are not shown. In rows the database has left
    both out.
    """

    def __init__(
        self,
        dataset: Dataset,
        fields: Sequence[Field],
        *,
        nulls: Collection[Field] = (),
        hidden: Collection[Field] = (),
    ) -> None:
        self.dataset, self.fields = dataset, tuple(fields)
        gone = _Unshown(frozenset(nulls), frozenset(hidden))
        converts = [_row_convert(f, gone) for f in fields]
        self._converts = [(i, c) for i, c in enumerate(converts) if c is not None]
        self._row = _RowShape(fields, 0, 0)
        self._message = _message_reader(fields, 0, gone)

    def encode(self, message: Message) -> bytes:
        """The record of a message that shows no more than the caller may see."""
        return orjson.dumps(self._message(message))

    def encode_row(self, row: Sequence[Any]) -> bytes:
        """The record of a row of ``fields``, as the database has it: LIST, MAP and STRUCT as the
        text of jsonb, an etag as a number or as text."""
        values = list(row)
        for i, convert in self._converts:
            if values[i] is not None:
                values[i] = convert(values[i])
        return orjson.dumps(self._row.build(values))


class ColumnsJson:
    """Writes the columns of a shape, given as JSON data (see ``values.to_json``), as exports do."""

    def __init__(self, fields: Sequence[Field]) -> None:
        converts = [(f.path, _data_convert(f)) for f in fields]
        self._converts = [(name, c) for name, c in converts if c is not None]

    def encode(self, data: Mapping[str, Any]) -> bytes:
        """The columns of one record, by name."""
        values = dict(data)
        for name, convert in self._converts:
            if values[name] is not None:
                values[name] = convert(values[name])
        return orjson.dumps(values)


def _data_convert(field: Field) -> Convert | None:
    if field.is_json:
        return lambda value: orjson.Fragment(data_text(value))
    if field.kind in (Kind.FLOAT, Kind.DOUBLE):
        single = field.kind is Kind.FLOAT
        return lambda value: value if type(value) is str else _write_number(value, single=single)
    return None


@dataclass(frozen=True)
class _Unshown:
    """The fields and members without a value for the caller: shown as null, or not at all."""

    nulls: frozenset[Field]
    hidden: frozenset[Field]

    @cached_property
    def paths(self) -> frozenset[str]:
        return frozenset(f.path for f in (*self.nulls, *self.hidden))

    def filler(self, field: Field) -> Convert:
        """A function that adds the members that are null to the JSON text of a list or map."""
        items = find_null_items(field, self.nulls, self.hidden)
        if items is None:
            return orjson.Fragment
        return lambda text: orjson.Fragment(data_text(items.fill(orjson.loads(text))))


# --- rows ---


class _RowShape:
    """One message of a record: the names of its members, and which of the values are theirs."""

    def __init__(self, fields: Sequence[Field], depth: int, start: int) -> None:
        self._names: list[str] = []
        #: The first and the last value of each nested message.
        self._nested: list[tuple[int, int, _RowShape]] = []
        self._start = at = start
        for name, run in _group_members(fields, depth):
            self._names.append(name)
            if len(run[0].json_steps) > depth + 1:
                self._nested.append((at, at + len(run), _RowShape(run, depth + 1, at)))
            at += len(run)
        self._end = at

    def build(self, values: Sequence[Any]) -> dict[str, Any]:
        """What ``orjson`` writes for the message."""
        made: list[Any] = []
        at = self._start
        for start, end, inner in self._nested:
            made += values[at:start]
            empty = all(v is None for v in values[start:end])
            made.append(None if empty else inner.build(values))
            at = end
        made += values[at : self._end]
        return dict(zip(self._names, made, strict=True))


def _group_members(fields: Sequence[Field], depth: int) -> list[tuple[str, list[Field]]]:
    """Fields by their JSON name at a depth; the leaves of a nested message stand together."""
    runs = itertools.groupby(fields, lambda f: f.json_steps[depth])
    return [(name, list(run)) for name, run in runs]


def _row_convert(field: Field, gone: _Unshown) -> Convert | None:
    """A function for the values of a row; None if ``orjson`` writes them as they are."""
    if field.is_etag:
        return str
    match field.kind:
        case Kind.INT64:
            return str
        case Kind.UINT64:
            return lambda value: str(int(value))
        case Kind.DECIMAL:
            return lambda value: format(value, "f")
        case Kind.DATE:
            return lambda value: value.isoformat()
        case Kind.TIMESTAMP:
            return lambda time: time.isoformat(timespec="microseconds").replace("+00:00", "Z")
        case Kind.LIST | Kind.MAP | Kind.STRUCT:
            return gone.filler(field)
    return _any_convert(field)


def _any_convert(field: Field) -> Convert | None:
    """A function for the values of kinds that are alike in rows and messages."""
    match field.kind:
        case Kind.FLOAT:
            return lambda value: _write_number(value, single=True)
        case Kind.DOUBLE:
            return lambda value: _write_number(value, single=False)
        case Kind.BYTES:
            return lambda value: base64.b64encode(value).decode()
    return None


def _write_number(value: float, *, single: bool) -> Any:
    """A float with the digits that PostgreSQL prints."""
    if not math.isfinite(value):
        return name_odd_float(value)
    if not single and 1e-4 <= abs(value) < 1e15:
        text = repr(value)
        return orjson.Fragment(text[:-2] if text.endswith(".0") else text)
    return orjson.Fragment(format_float(value, single))


# --- messages ---


def _message_reader(
    fields: Sequence[Field], depth: int, gone: _Unshown
) -> Callable[[Any], dict[str, Any]]:
    """A function that makes what ``orjson`` writes for a message."""
    members: list[tuple[str, Get]] = []
    for name, run in _group_members(fields, depth):
        if len(run[0].json_steps) > depth + 1:
            inner = _message_reader(run, depth + 1, gone)
            members.append((name, _nested_getter(run[0].steps[depth], inner)))
        elif run[0] in gone.nulls:
            members.append((name, _show_null))
        else:
            members.append((name, _leaf_getter(run[0], gone)))
    return lambda message: {name: get(message) for name, get in members}


def _show_null(message: Any) -> None:
    return None


def _nested_getter(name: str, inner: Callable[[Any], dict[str, Any]]) -> Get:
    def get(message: Any) -> Any:
        if not message.HasField(name):
            return None
        made = inner(getattr(message, name))
        return None if all(v is None for v in made.values()) else made

    return get


def _leaf_getter(field: Field, gone: _Unshown) -> Get:
    name, convert = field.steps[-1], _message_convert(field, gone)
    if field.presence and not field.repeated:
        return _optional_getter(name, convert)
    if convert is None:
        return lambda message: getattr(message, name)
    return lambda message: convert(getattr(message, name))


def _optional_getter(name: str, convert: Convert | None) -> Get:
    if convert is None:
        return lambda message: getattr(message, name) if message.HasField(name) else None
    return lambda message: convert(getattr(message, name)) if message.HasField(name) else None


def _message_convert(field: Field, gone: _Unshown) -> Convert | None:
    """A function for what a message has in a field; None if ``orjson`` writes it as it is."""
    if field.is_etag:
        return lambda text: text or None
    match field.kind:
        case Kind.INT64 | Kind.UINT64:
            return str
        case Kind.DECIMAL:
            return lambda text: text or "0"
        case Kind.DATE:
            return lambda text: text or None
        case Kind.ENUM:
            names = {n: name for name, n in reversed([*(field.enum_values or {}).items()])}
            # An image of an earlier model may have a number that has no name any more.
            return lambda number: names.get(number, number)
        case Kind.TIMESTAMP:
            return time_of
        case Kind.STRUCT:
            return lambda value: orjson.Fragment(struct_text(value))
        case Kind.LIST | Kind.MAP:
            write, fill = many_writer(field, gone.paths), gone.filler(field)
            return lambda held: fill(write(held))
    return _any_convert(field)
