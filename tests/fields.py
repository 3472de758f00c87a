"""Every field of every request of every method, for tests of promises that hold for all fields."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from penstockd.catalog.load import load_catalog
from penstockd.resources import find_descriptors
from penstockd.rpc import datasets
from penstockd.rpc.door import Route
from penstockd.rpc.hub import list_hub_routes as hub_routes

_TEXTS = (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES)


@dataclass(frozen=True)
class Place:
    """A field of a request, and the way to it from the request."""

    route: Route
    path: tuple[FieldDescriptor, ...]

    @property
    def field(self) -> FieldDescriptor:
        """The field itself."""
        return self.path[-1]

    @property
    def name(self) -> str:
        """The method and the path of the field, for people."""
        return f"{self.route.method.path} {'.'.join(f.name for f in self.path)}"

    def message(self, value: Any, base: Mapping[str, Any] | None = None) -> Message:
        """A copy of ``base`` in which the field is ``value``."""
        request = self.route.request(**(base or {}))
        holder: Any = request
        for step in self.path[:-1]:
            inner = getattr(holder, step.name)
            if is_map(step):
                inner = inner["k"]
            elif step.is_repeated:
                inner = inner[0] if len(inner) else inner.add()
            else:
                inner.SetInParent()
            holder = inner
        put(holder, self.field, value)
        return request


def put(holder: Any, field: FieldDescriptor, value: Any) -> None:
    """Set a field of any kind. For repeated fields and maps the value is the number of items, or
    for a repeated enum the items themselves.

    The items of a map or repeated field of messages are empty messages.
    """
    if is_map(field):
        entry = field.message_type
        assert entry is not None
        inner = getattr(holder, field.name)
        of_messages = entry.fields_by_name["value"].message_type is not None
        texts = entry.fields_by_name["key"].type == FieldDescriptor.TYPE_STRING
        for i in range(value):
            key = f"k{i}" if texts else i
            if of_messages:
                inner.get_or_create(key)
            else:
                inner[key] = type(inner[key])()
    elif field.is_repeated and field.message_type is not None:
        inner = getattr(holder, field.name)
        for _ in range(value):
            inner.add()
    elif isinstance(value, list):
        getattr(holder, field.name).extend(value)
    elif field.is_repeated:
        item: Any = "x" if field.type == FieldDescriptor.TYPE_STRING else 1
        getattr(holder, field.name).extend(
            [b"x" if field.type == FieldDescriptor.TYPE_BYTES else item] * value
        )
    else:
        setattr(holder, field.name, value)


def is_map(field: FieldDescriptor) -> bool:
    """Whether a field is a map."""
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def is_text(field: FieldDescriptor) -> bool:
    """Whether a field is a single string or bytes."""
    return not field.is_repeated and field.type in _TEXTS


def all_routes() -> list[Route]:
    """Every method of every service."""
    return [*hub_routes(), *datasets.list_routes(load_catalog(find_descriptors()))]


def sized_places(route: Route) -> Iterator[Place]:
    """Every repeated, map, string and bytes field of a method's requests, at any depth."""
    for path in _paths(route.request.DESCRIPTOR, ()):
        if path[-1].is_repeated or is_text(path[-1]):
            yield Place(route, path)


def enum_places(route: Route) -> Iterator[Place]:
    """Every enum field of a method's requests, at any depth."""
    for path in _paths(route.request.DESCRIPTOR, ()):
        if path[-1].enum_type is not None:
            yield Place(route, path)


def _paths(
    message: Any, above: tuple[FieldDescriptor, ...]
) -> Iterator[tuple[FieldDescriptor, ...]]:
    fields: Any = message.fields
    for field in fields:
        path = (*above, field)
        yield path
        inner: Any = field.message_type
        if inner is not None and is_map(field):
            inner = inner.fields_by_name["value"].message_type
        if inner is not None and not any(f.containing_type is inner for f in path):
            yield from _paths(inner, path)
