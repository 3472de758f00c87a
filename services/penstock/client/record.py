"""Records as messages, and as the dicts of proto JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message

from penstock.client.json_messages import parse_message

# protobuf's type stubs have two incompatible classes of descriptors.
Descriptor = Any
FieldDescriptor = Any

#: A record as an argument: a message, or proto JSON with camelCase or proto names.
Record = Message | Mapping[str, Any]


def to_message(record: Record, record_class: type[Message]) -> Message:
    """The message of a record. Raises ValueError if it is not one of the dataset."""
    if isinstance(record, Message):
        if record.DESCRIPTOR.full_name != record_class.DESCRIPTOR.full_name:
            raise ValueError(
                f"the record is a {record.DESCRIPTOR.name}, not a {record_class.DESCRIPTOR.name}"
            )
        return record
    check_structs(record, record_class.DESCRIPTOR)
    try:
        return parse_message(dict(record), record_class)
    except json_format.ParseError as error:
        raise ValueError(f"not a record of {record_class.DESCRIPTOR.name}: {error}") from None


def check_structs(record: Mapping[str, Any], message: Descriptor, prefix: str = "") -> None:
    """Raise ValueError, with the path, for a number in a Struct that no double holds: protobuf
    would round it without a word."""
    by_name = {f.json_name: f for f in message.fields} | dict(message.fields_by_name)
    for name, value in record.items():
        field = by_name.get(name)
        if field is None or not isinstance(value, Mapping):
            continue
        if is_struct(field):
            _check_numbers(value, f"{prefix}{name}")
        elif is_nested(field):
            check_structs(value, field.message_type, f"{prefix}{name}.")


def _check_numbers(value: Any, path: str) -> None:
    if isinstance(value, Mapping):
        for name, member in value.items():
            _check_numbers(member, f"{path}.{name}")
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            _check_numbers(item, f"{path}[{i}]")
    elif isinstance(value, int | float) and not is_exact(value):
        raise ValueError(f"{path} is {str(value)[:40]}, which a Struct cannot hold: send a text")


def is_exact(value: int | float | Decimal) -> bool:
    """Whether a Struct holds the number with all its digits; from 2^53 on a double may be a rounded
    integer."""
    if not -(2**53) < value < 2**53:  # NaN, too
        return False
    return isinstance(value, float) or Decimal(repr(float(value))) == value


def is_struct(field: FieldDescriptor) -> bool:
    """Whether a field is a Struct: JSON, whose members the model does not name."""
    message = field.message_type
    return message is not None and message.full_name == "google.protobuf.Struct"


def paths_of(record: Record, message: Descriptor) -> list[str]:
    """The fields that a record sets, as paths of a field mask.

    In a mapping, nulls count: they clear their fields. A message shows only what is set. Raises
    ValueError for a name that the message does not have.
    """
    if isinstance(record, Message):
        return list(_set_paths(record, ""))
    return list(_named_paths(record, message, ""))


def to_proto_json(message: Message, **options: Any) -> dict[str, Any]:
    """The message as ``json_format.MessageToDict`` has it, but whole numbers in Structs are int and
    each Struct is a JsonObject."""
    document: dict[str, Any] = json_format.MessageToDict(message, **options)
    _write_structs(document, message)
    return document


def _write_structs(document: dict[str, Any], message: Message) -> None:
    for field, value in message.ListFields():
        name = field.json_name if field.json_name in document else field.name
        if is_struct(field):
            document[name] = read_struct(value)
        elif is_nested(field):
            _write_structs(document[name], value)


class JsonObject(dict[str, Any]):
    """What a Struct holds: one value, although it has members."""


def read_struct(message: Any) -> JsonObject:
    """The JSON object that a Struct holds."""
    return JsonObject((name, _read_value(value)) for name, value in message.fields.items())


def _read_value(value: Any) -> Any:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return read_struct(value.struct_value)
    if kind == "list_value":
        return [_read_value(v) for v in value.list_value.values]
    if kind == "number_value":
        number: float = value.number_value
        return int(number) if number.is_integer() else number
    return None if kind in ("null_value", None) else getattr(value, kind)


def _set_paths(message: Message, prefix: str) -> Iterator[str]:
    for field, value in message.ListFields():
        if is_nested(field):
            yield from list(_set_paths(value, f"{prefix}{field.name}.")) or [prefix + field.name]
        else:
            yield prefix + field.name


def _named_paths(record: Mapping[str, Any], message: Descriptor, prefix: str) -> Iterator[str]:
    by_name: dict[str, FieldDescriptor] = {f.json_name: f for f in message.fields}
    by_name.update(message.fields_by_name)
    for name, value in record.items():
        if name not in by_name:
            raise ValueError(f"{message.name} has no field '{prefix}{name}'")
        field = by_name[name]
        if is_nested(field) and isinstance(value, Mapping) and value:
            yield from _named_paths(value, field.message_type, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name


def is_nested(field: FieldDescriptor) -> bool:
    """Whether a field is a single message of the model."""
    message = field.message_type
    return (
        message is not None
        and not field.is_repeated
        and not message.full_name.startswith("google.protobuf.")
    )
