"""Values of requests that are not parts of records: from JSON and from query parameters."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from typing import Any

from google.protobuf import duration_pb2, field_mask_pb2, timestamp_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from penstockd.catalog.model import Field, FieldClass, Kind
from penstockd.catalog.scalars import ValueRefused, json_parser, text_parser, type_name

Parse = Callable[[Any], Any]

_KINDS = {
    FieldDescriptor.CPPTYPE_INT32: Kind.INT32,
    FieldDescriptor.CPPTYPE_INT64: Kind.INT64,
    FieldDescriptor.CPPTYPE_UINT32: Kind.UINT32,
    FieldDescriptor.CPPTYPE_UINT64: Kind.UINT64,
    FieldDescriptor.CPPTYPE_FLOAT: Kind.FLOAT,
    FieldDescriptor.CPPTYPE_DOUBLE: Kind.DOUBLE,
    FieldDescriptor.CPPTYPE_BOOL: Kind.BOOL,
    FieldDescriptor.CPPTYPE_ENUM: Kind.ENUM,
}
_UPPER = re.compile("[A-Z]")
_DURATION = re.compile(r"-?[0-9]{1,12}(\.[0-9]{1,9})?s")


@functools.cache
def json_value(field: FieldDescriptor) -> Parse:
    """A function from parsed JSON to what protobuf's API takes for one value of a scalar field.

    It raises ValueRefused.
    """
    if field.type == FieldDescriptor.TYPE_STRING:
        return _read_text
    return _number_enums(field, json_parser(_scalar_field(field)))


@functools.cache
def text_value(field: FieldDescriptor) -> Parse:
    """The same from the text of a query parameter."""
    if field.type == FieldDescriptor.TYPE_STRING:
        return _read_text
    if field.cpp_type == FieldDescriptor.CPPTYPE_BOOL:
        return _read_flag
    return _number_enums(field, text_parser(_scalar_field(field)))


@functools.cache
def known_message(kind: Descriptor) -> Callable[[Any], Message] | None:
    """A function from JSON to a message that JSON writes as a value; None for other messages.

    It raises ValueRefused.
    """
    return _KNOWN.get(kind.full_name)


def follow_steps(message: Any, steps: Sequence[str]) -> Any:
    """The message that ``steps``, names of fields, lead to."""
    for step in steps:
        message = getattr(message, step)
    return message


def fill_message(held: Message, value: Message) -> None:
    """Make a message hold a value, whose class may be one of another pool."""
    held.Clear()
    held.SetInParent()
    held.MergeFromString(value.SerializeToString())


def _number_enums(field: FieldDescriptor, parse: Parse) -> Parse:
    """``parse``, with enums as numbers."""
    if field.enum_type is None:
        return parse
    numbers = {value.name: value.number for value in field.enum_type.values}
    return lambda value: numbers[parse(value)]


def _scalar_field(field: FieldDescriptor) -> Field:
    kind = _KINDS.get(field.cpp_type)
    if kind is None:
        kind = Kind.BYTES if field.type == FieldDescriptor.TYPE_BYTES else Kind.STRING
    values = None
    if field.enum_type is not None:
        values = {value.name: value.number for value in field.enum_type.values}
    return Field("", "", kind, FieldClass.PUBLIC, False, enum_values=values)


def _read_flag(text: str) -> bool:
    flag = text.lower()  # Python's clients write True
    if flag not in ("true", "false"):
        raise ValueRefused(f"is {text[:40]!r}, not true or false")
    return flag == "true"


def _read_text(value: Any) -> str:
    """A text, which may hold everything but U+0000."""
    if type(value) is not str:
        raise ValueRefused(f"must be a string, not {type_name(value)}")
    if (at := value.find("\0")) >= 0:
        raise ValueRefused(f"holds the forbidden character U+0000 at position {at + 1}")
    return value


def _read_time(value: Any) -> Message:
    stamp = timestamp_pb2.Timestamp()
    parse = text_parser(Field("", "", Kind.TIMESTAMP, FieldClass.PUBLIC, False))
    stamp.FromDatetime(parse(_read_text(value)))
    return stamp


def _read_duration(value: Any) -> Message:
    text = _read_text(value)
    duration = duration_pb2.Duration()
    if not _DURATION.fullmatch(text):
        raise ValueRefused(f"is {text[:40]!r}, not a duration such as 30s or 1.5s")
    try:
        duration.FromJsonString(text)
    except ValueError:
        raise ValueRefused(f"is {text[:40]!r}, which is too long a duration") from None
    return duration


def _read_mask(value: Any) -> Message:
    paths = [path.strip() for path in _read_text(value).split(",")]
    names = [_UPPER.sub(lambda c: "_" + c[0].lower(), path) for path in paths if path]
    return field_mask_pb2.FieldMask(paths=names)


_KNOWN: dict[str, Callable[[Any], Message]] = {
    "google.protobuf.Timestamp": _read_time,
    "google.protobuf.Duration": _read_duration,
    "google.protobuf.FieldMask": _read_mask,
}
