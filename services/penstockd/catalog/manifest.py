"""A catalog as data: the store's record of the model of its tables.

A manifest shows every difference that matters to stored values: column types do not distinguish an
enum from a string, or one list from another. It stays readable when the rules of the vocabulary
change, since nothing in it is compiled.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from pydantic import TypeAdapter

from penstock.options.v1 import options_pb2
from penstockd.catalog.load import load_leaf
from penstockd.catalog.model import VALUE_MESSAGES, Catalog, Dataset, Field, FieldClass, Kind
from penstockd.catalog.rules import rules_text


@dataclass(frozen=True)
class ValueShape:
    """The JSON form of the values of a field, an element or a member.

    ``kind`` is the name of a Kind, or MESSAGE for a message in a list or map, which ``message``
    names. ``element`` is the shape of a LIST's or MAP's elements, ``map_key`` the Kind of a MAP's
    keys.

    ``wire`` and ``key_wire`` say how protobuf encodes whole numbers, and keys that are whole
    numbers: equal values can have different bytes. None for other values, and in manifests of
    earlier versions of the hub.
    """

    kind: str
    enum_values: Mapping[str, int] = field(default_factory=dict)
    precision: int = 0
    scale: int = 0
    element: ValueShape | None = None
    message: str = ""
    map_key: str = ""
    wire: str | None = field(default=None, compare=False)
    key_wire: str | None = field(default=None, compare=False)


@dataclass(frozen=True)
class MemberShape:
    """A member of a message in a list or map. ``filled``: it is never absent in JSON."""

    number: int
    json_name: str
    shape: ValueShape
    filled: bool


@dataclass(frozen=True)
class StoredField:
    """A column: the field's path by name and by number, and the shape of its values."""

    path: str
    numbers: tuple[int, ...]
    shape: ValueShape
    nullable: bool
    key: bool = False


@dataclass(frozen=True)
class StoredDataset:
    """A table: its fields, and the rules of its values as text, which are compared only as text."""

    fields: tuple[StoredField, ...]
    rules: str = ""


@dataclass(frozen=True)
class Manifest:
    """All datasets, and all messages in their lists and maps, by name."""

    datasets: Mapping[str, StoredDataset]
    messages: Mapping[str, tuple[MemberShape, ...]]


_ADAPTER = TypeAdapter(Manifest)


def write_manifest(catalog: Catalog) -> Manifest:
    """The manifest of a catalog."""
    messages: dict[str, tuple[MemberShape, ...]] = {}
    datasets = {}
    for dataset in catalog:
        stored = tuple(_stored_field(dataset, f, messages) for f in dataset.fields)
        datasets[dataset.name] = StoredDataset(stored, rules_text(dataset))
    return Manifest(datasets, messages)


def dump_manifest(manifest: Manifest) -> str:
    """The manifest as JSON."""
    return _ADAPTER.dump_json(manifest).decode()


def parse_manifest(text: str) -> Manifest:
    """Read a manifest that ``dump_manifest`` wrote."""
    return _ADAPTER.validate_json(text)


def _stored_field(
    dataset: Dataset, field: Field, messages: dict[str, tuple[MemberShape, ...]]
) -> StoredField:
    way = list(_find_descriptors(dataset.message_type, field))
    shape = value_shape(field, way[-1], messages)
    numbers = tuple(fd.number for fd in way)
    return StoredField(field.path, numbers, shape, field.nullable, field.in_key)


def _find_descriptors(message: Descriptor, field: Field) -> Iterator[FieldDescriptor]:
    """The descriptors of the steps of a field's path."""
    for step in field.steps:
        fd = message.fields_by_name[step]
        yield fd
        if fd.message_type is not None:
            message = fd.message_type


def value_shape(
    field: Field, fd: FieldDescriptor, messages: dict[str, tuple[MemberShape, ...]]
) -> ValueShape:
    """The shape of a field, or of its elements; adds the messages within it to ``messages``."""
    if not field.repeated:
        limits = dict(field.enum_values or {}), field.precision, field.scale
        return ValueShape(field.kind.name, *limits, wire=_WIRES.get(fd.type))
    key_wire = None
    if field.kind is Kind.MAP:
        assert fd.message_type is not None, "a map is a list of entries"
        entry = fd.message_type.fields_by_name
        fd, key_wire = entry["value"], _WIRES.get(entry["key"].type)
    if field.element_message is not None:
        _add_message(field.element_message, messages)
        element = ValueShape("MESSAGE", message=field.element_message.full_name)
    else:
        assert field.element is not None
        element = value_shape(field.element, fd, messages)
    map_key = field.map_key.name if field.map_key is not None else ""
    return ValueShape(field.kind.name, element=element, map_key=map_key, key_wire=key_wire)


#: How protobuf encodes whole numbers.
_WIRES: Mapping[int, str] = {
    FieldDescriptor.TYPE_INT32: "VARINT",
    FieldDescriptor.TYPE_INT64: "VARINT",
    FieldDescriptor.TYPE_UINT32: "VARINT",
    FieldDescriptor.TYPE_UINT64: "VARINT",
    FieldDescriptor.TYPE_SINT32: "ZIGZAG",
    FieldDescriptor.TYPE_SINT64: "ZIGZAG",
    FieldDescriptor.TYPE_FIXED32: "FIXED",
    FieldDescriptor.TYPE_FIXED64: "FIXED",
    FieldDescriptor.TYPE_SFIXED32: "FIXED",
    FieldDescriptor.TYPE_SFIXED64: "FIXED",
}


def _add_message(message: Descriptor, messages: dict[str, tuple[MemberShape, ...]]) -> None:
    if message.full_name in messages:
        return
    messages[message.full_name] = ()  # a message can contain itself
    messages[message.full_name] = tuple(_member_shape(fd, messages) for fd in message.fields)


def _member_shape(fd: FieldDescriptor, messages: dict[str, tuple[MemberShape, ...]]) -> MemberShape:
    of = fd.message_type
    if of is not None and not fd.is_repeated and of.full_name not in VALUE_MESSAGES:
        _add_message(of, messages)
        shape = ValueShape("MESSAGE", message=of.full_name)
        return MemberShape(fd.number, fd.json_name, shape, filled=False)
    own: Any = fd.GetOptions()
    options = own.Extensions[options_pb2.field]
    member = load_leaf(fd, options, fd.name, fd.json_name, FieldClass.PUBLIC, False, {})
    filled = not member.nullable and member.kind not in (Kind.DATE, Kind.TIMESTAMP)
    return MemberShape(fd.number, fd.json_name, value_shape(member, fd, messages), filled)
