"""Replies as JSON: messages by the rules of proto JSON, records as exports write them."""

from __future__ import annotations

import base64
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from penstockd.catalog.structs import parse_struct, read_struct
from penstockd.floats import name_odd_float

#: Writes a record as JSON.
EncodeRecord = Callable[[Message], bytes]
_Encode = Callable[[Any], Any]

_TEXT_NUMBERS = (
    *(FieldDescriptor.TYPE_INT64, FieldDescriptor.TYPE_UINT64, FieldDescriptor.TYPE_SINT64),
    *(FieldDescriptor.TYPE_FIXED64, FieldDescriptor.TYPE_SFIXED64),
)
_FLOATS = (FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE)
_JSON_TEXTS = frozenset(
    f"google.protobuf.{name}" for name in ("Timestamp", "Duration", "FieldMask")
)
#: The members of a change that hold the columns of a shape.
_SHAPED = frozenset({"shaped", "shapedBefore"})
_TYPE_URL = "type.googleapis.com/"


class ReplyWriter:
    """Writes the replies of one call.

    ``records`` has a function for the full name of each message that is a record. ``columns`` are
    the columns of shapes by dataset, in the order in which they are written.
    """

    def __init__(
        self,
        records: Mapping[str, EncodeRecord],
        pool: Any,
        columns: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self._records, self._pool, self._columns = records, pool, columns or {}

    def encode(self, message: Message) -> bytes:
        """A message as JSON."""
        return orjson.dumps(self.data(message))

    def data(self, message: Message) -> Any:
        """What ``orjson`` writes for a message."""
        kind = message.DESCRIPTOR
        name = kind.full_name
        if (record := self._records.get(name)) is not None:
            return orjson.Fragment(record(message))
        if name in _JSON_TEXTS:
            return message.ToJsonString()  # type: ignore[attr-defined]
        if name == "google.protobuf.Struct":
            return parse_struct(read_struct(message))
        if name == "google.protobuf.Any":
            return self._any(message)
        found: dict[str, Any] = dict(_empty_list(kind))
        for field, value in message.ListFields():
            found[field.json_name] = self._value(field, value)
        if self._columns:
            self._arrange(message, found)
        return found

    def _arrange(self, message: Any, data: dict[str, Any]) -> None:
        """Put the columns of a change's shape in their order, which a Struct does not keep."""
        for name in _SHAPED & data.keys():
            dataset = getattr(message, "dataset", "") or next(iter(self._columns))
            data[name] = {c: data[name][c] for c in self._columns[dataset] if c in data[name]}

    def _value(self, field: FieldDescriptor, value: Any) -> Any:
        inner = field.message_type
        if inner is not None and inner.GetOptions().map_entry:
            encode = self._encoder(inner.fields_by_name["value"])
            return {_key_text(key): encode(item) for key, item in value.items()}
        encode = self._encoder(field)
        return [encode(item) for item in value] if field.is_repeated else encode(value)

    def _encoder(self, field: FieldDescriptor) -> _Encode:
        return self.data if field.message_type is not None else _scalar_encoder(field)

    def _any(self, message: Any) -> Any:
        """A message of any type, with its type as its first member."""
        kind = self._pool.FindMessageTypeByName(message.type_url.removeprefix(_TYPE_URL))
        held = GetMessageClass(kind).FromString(message.value)
        text = orjson.dumps(self.data(held))
        head = orjson.dumps({"@type": message.type_url})[:-1]
        return orjson.Fragment(head + (b"," if text != b"{}" else b"") + text[1:])


@functools.cache
def _scalar_encoder(field: FieldDescriptor) -> _Encode:
    if field.type in _TEXT_NUMBERS:
        return str
    if field.type in _FLOATS:
        return lambda value: value if math.isfinite(value) else name_odd_float(value)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return lambda value: base64.b64encode(value).decode()
    if field.enum_type is not None:
        names = {value.number: value.name for value in reversed(field.enum_type.values)}
        return lambda value: names.get(value, value)
    return lambda value: value


@functools.cache
def _empty_list(kind: Descriptor) -> Mapping[str, Any]:
    """The list of a reply to a List… method, which is there even if it is empty."""
    if not (kind.name.startswith("List") and kind.name.endswith("Response")):
        return {}
    return {f.json_name: [] for f in kind.fields[:1] if f.is_repeated}


def _key_text(key: Any) -> str:
    return ("true" if key else "false") if isinstance(key, bool) else str(key)
