"""Keys as text, in the hub's spelling for paths, changes and digests.

A key is one field or several, in the order of the schema. The parts of a key of several fields are
joined by ``~``; within a string, ``~`` is written ``%7E`` and ``%`` is written ``%25``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from google.protobuf.message import Message

from penstock.options.v1 import options_pb2

# protobuf's type stubs have two incompatible classes of descriptors.
Descriptor = Any
FieldDescriptor = Any


def find_key_fields(record: Descriptor) -> tuple[FieldDescriptor, ...]:
    """The fields that make up a record's key, in order."""
    key = options_pb2.field
    return tuple(f for f in record.fields if f.GetOptions().Extensions[key].key)


def joins_key(fields: Sequence[FieldDescriptor]) -> bool:
    """Whether the text of the key joins several fields, instead of being the only field."""
    return len(fields) > 1 or fields[0].type != fields[0].TYPE_STRING


def key_of(record: Message, fields: Sequence[FieldDescriptor]) -> str:
    """The text of a record's key."""
    parts = [getattr(record, f.name) for f in fields]
    if len(parts) == 1:
        return str(parts[0])
    return "~".join([_escape_part(p) if isinstance(p, str) else str(p) for p in parts])


def find_lacking(
    record: Message | Mapping[str, Any], fields: Sequence[FieldDescriptor]
) -> list[str]:
    """The names of the key's fields that a record lacks; numbers are always present in a
    message."""
    if isinstance(record, Message):
        return [f.name for f in fields if getattr(record, f.name) == ""]
    return [f.name for f in fields if record.get(f.name, record.get(f.json_name)) in (None, "")]


def _escape_part(text: str) -> str:
    return text.replace("%", "%25").replace("~", "%7E")
