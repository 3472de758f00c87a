"""Rows as serialised records, column by column: for batches, where building messages would cost
more than the rest of a write.

The bytes are protobuf's wire format, with fields in the order of the schema; parsed, they give the
message that ``record.Codec`` makes of the same row.
"""

from __future__ import annotations

import datetime as dt
import struct
from collections.abc import Callable, Sequence
from typing import Any

import orjson
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from penstock.client.json_messages import parse_message
from penstockd.catalog.model import Dataset, Field, Kind
from penstockd.catalog.record import (
    UNREADABLE,
    explain_unreadable,
    load_list,
    seconds_and_micros,
)
from penstockd.catalog.structs import struct_wire
from penstockd.catalog.varint import delimit_bytes, encode_varint

#: A value that is not None -> the bytes of its field, with the tag.
Encode = Callable[[Any], bytes]
#: The same for a whole column, in which None gives no bytes.
EncodeColumn = Callable[[Sequence[Any]], list[bytes]]

_VARINT, _FIXED64, _DELIMITED, _FIXED32 = 0, 1, 2, 5
_SHORT = 128  # lengths below it take one byte

_ZIGZAG = (FieldDescriptor.TYPE_SINT32, FieldDescriptor.TYPE_SINT64)
_STRUCTS = {
    FieldDescriptor.TYPE_DOUBLE: ("<d", _FIXED64),
    FieldDescriptor.TYPE_FIXED64: ("<Q", _FIXED64),
    FieldDescriptor.TYPE_SFIXED64: ("<q", _FIXED64),
    FieldDescriptor.TYPE_FLOAT: ("<f", _FIXED32),
    FieldDescriptor.TYPE_FIXED32: ("<I", _FIXED32),
    FieldDescriptor.TYPE_SFIXED32: ("<i", _FIXED32),
}

_WIRE_TYPES = {
    FieldDescriptor.TYPE_STRING: _DELIMITED,
    FieldDescriptor.TYPE_BYTES: _DELIMITED,
    FieldDescriptor.TYPE_MESSAGE: _DELIMITED,
    **{kind: wire_type for kind, (_, wire_type) in _STRUCTS.items()},
}


class WireCodec:
    """Serialises the rows of a dataset from columns of values as stored.

    The columns are those of ``fields``, or of all fields of the dataset.
    """

    def __init__(self, dataset: Dataset, fields: Sequence[Field] | None = None) -> None:
        chosen = dataset.fields if fields is None else fields
        self._dataset, self._fields = dataset, tuple(chosen)
        self._group = _Group(dataset.message_type, chosen, 0)

    def images(self, columns: Sequence[Sequence[Any]]) -> list[bytes]:
        """The serialised record of every row. Raises RecordUnreadable as ``Codec`` does."""
        try:
            return self._group.encode(columns)
        except UNREADABLE as exc:
            for row in zip(*columns, strict=True):
                if refused := explain_unreadable(self._dataset, self._fields, row):
                    raise refused from exc
            raise


class _Group:
    """One message of a record, split as in ``record._RecordShape``."""

    def __init__(self, message: Descriptor, fields: Sequence[Field], depth: int) -> None:
        self._parts: list[tuple[list[int], EncodeColumn | None, _Group | None, bytes]] = []
        names: dict[str, list[int]] = {}
        for i, f in enumerate(fields):
            names.setdefault(f.steps[depth], []).append(i)
        for name, places in names.items():
            fd = message.fields_by_name[name]
            leaf = fields[places[0]]
            if len(leaf.steps) == depth + 1:
                self._parts.append((places, column_encoder(fd, leaf), None, b""))
            else:
                assert fd.message_type is not None, "a path goes through messages only"
                inner = _Group(fd.message_type, [fields[i] for i in places], depth + 1)
                self._parts.append((places, None, inner, tag_of(fd)))

    def encode(self, columns: Sequence[Sequence[Any]]) -> list[bytes]:
        """The bytes of the message in every row."""
        pieces = []
        for places, encode, group, tag in self._parts:
            if encode is not None:
                pieces.append(encode(columns[places[0]]))
            elif group is not None:
                within = [columns[i] for i in places]
                present = [any(v is not None for v in row) for row in zip(*within, strict=True)]
                encoded = group.encode(within)
                pieces.append(
                    [
                        delimit_bytes(tag, data) if there else b""
                        for there, data in zip(present, encoded, strict=True)
                    ]
                )
        return list(map(b"".join, zip(*pieces, strict=True)))


def column_encoder(fd: FieldDescriptor, field: Field) -> EncodeColumn:
    """Serialises the values of one leaf."""
    if field.is_etag:
        return _bytes_column(fd, field, lambda value: str(value).encode())
    match field.kind:
        case Kind.STRING:
            return _bytes_column(fd, field, str.encode)
        case Kind.DECIMAL:
            return _bytes_column(fd, field, lambda value: format(value, "f").encode())
        case Kind.DATE:
            return _bytes_column(fd, field, lambda value: value.isoformat().encode())
        case Kind.BYTES:
            return _bytes_column(fd, field, bytes)
    encode = _field_encoder(fd, field)
    return lambda column: [b"" if v is None else encode(v) for v in column]


def _field_encoder(fd: FieldDescriptor, field: Field) -> Encode:
    match field.kind:
        case Kind.LIST | Kind.MAP:
            return _repeated_encoder(fd, field)
        case Kind.STRUCT:
            head = tag_of(fd)
            return lambda text: delimit_bytes(head, struct_wire(text))
        case Kind.TIMESTAMP:
            return _timestamp_encoder(tag_of(fd))
        case Kind.ENUM:
            assert field.enum_values is not None
            tag = tag_of(fd)
            known = {
                name: tag + encode_varint(number & 0xFFFFFFFFFFFFFFFF)
                if number or field.presence
                else b""
                for name, number in field.enum_values.items()
            }
            return known.__getitem__
    return _number_encoder(fd, field)


def _bytes_column(
    fd: FieldDescriptor, field: Field, encode: Callable[[Any], bytes]
) -> EncodeColumn:
    tag = tag_of(fd)
    heads = [tag + bytes([size]) for size in range(_SHORT)]
    if not field.presence:
        heads[0] = b""

    def column(values: Sequence[Any]) -> list[bytes]:
        raw = [None if v is None else encode(v) for v in values]
        return [
            b"" if b is None else heads[len(b)] + b if len(b) < _SHORT else delimit_bytes(tag, b)
            for b in raw
        ]

    return column


def _number_encoder(fd: FieldDescriptor, field: Field) -> Encode:
    if fd.type in _STRUCTS:
        tag, pack = tag_of(fd), struct.Struct(_STRUCTS[fd.type][0]).pack
        whole = field.kind not in (Kind.FLOAT, Kind.DOUBLE)
        nothing = None if field.presence else pack(0)

        def fixed(value: Any) -> bytes:
            packed = pack(int(value) if whole else value)
            return b"" if packed == nothing else tag + packed

        return fixed
    tag, zigzag, kept = tag_of(fd), fd.type in _ZIGZAG, field.presence

    def plain(value: Any) -> bytes:
        number = int(value)
        if zigzag:
            number = (number << 1) ^ (number >> 63)
        return tag + encode_varint(number & 0xFFFFFFFFFFFFFFFF) if number or kept else b""

    return plain


def _timestamp_encoder(tag: bytes) -> Encode:
    latest: tuple[dt.datetime | None, bytes] = (None, b"")

    def encode(value: dt.datetime) -> bytes:
        nonlocal latest
        # The rows of an import share their times.
        if latest[0] is value:
            return latest[1]
        seconds, micros = seconds_and_micros(value)
        inner = b"\x08" + encode_varint(seconds & 0xFFFFFFFFFFFFFFFF) if seconds else b""
        if micros:
            inner += b"\x10" + encode_varint(micros * 1000)
        latest = (value, delimit_bytes(tag, inner))
        return latest[1]

    return encode


def _repeated_encoder(fd: FieldDescriptor, field: Field) -> Encode:
    if field.kind is Kind.LIST and field.element and field.element.kind is Kind.STRING:
        tag = tag_of(fd)

        def strings(text: str) -> bytes:
            if text == "[]":
                return b""
            return b"".join([delimit_bytes(tag, item.encode()) for item in load_list(text)])

        return strings
    assert fd.containing_type is not None, "a field of a message"
    holder, name = message_factory.GetMessageClass(fd.containing_type), fd.name

    def others(text: str) -> bytes:
        data = orjson.loads(text)
        if not data:
            return b""
        message = parse_message({name: data}, holder)
        return bytes(message.SerializeToString(deterministic=True))

    return others


def tag_of(fd: FieldDescriptor) -> bytes:
    """The bytes before every value of a field, or of one element."""
    return encode_varint(fd.number << 3 | _WIRE_TYPES.get(fd.type, _VARINT))
