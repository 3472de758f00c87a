"""Every method of every service, and its request with a text in one place after another."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any, NamedTuple

from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from penstockd.catalog.load import load_catalog
from penstockd.resources import find_descriptors
from penstockd.rpc import datasets
from penstockd.rpc.door import Route
from penstockd.rpc.hub import list_hub_routes as hub_routes


class Placed(NamedTuple):
    """A request that contains a text at the place of a path."""

    path: str
    request: Message


@cache
def every_route() -> tuple[Route, ...]:
    """The routes that the server registers."""
    return (*hub_routes(), *datasets.list_routes(load_catalog(find_descriptors())))


def method_of(route: Route) -> Any:
    """A route's descriptor."""
    pool = load_catalog(find_descriptors()).pool
    return pool.FindMethodByName(f"{route.method.service}.{route.method.name}")


#: The dataset in whose records every field is tried; the rule is the same for all datasets.
WHOLE = "customers"


def placed(route: Route, text: str) -> Iterator[Placed]:
    """The route's request with the text in each of its places, one at a time.

    For datasets other than WHOLE, only the fields of the request itself are tried.
    """
    nested = route.method.dataset in (None, WHOLE)
    kind = method_of(route).input_type
    made = message_factory.GetMessageClass(kind)
    for path, steps in _places(kind, "", ()):
        if len(steps) > 1 and not nested:
            continue
        request = made()
        _put(request, steps, text)
        yield Placed(path, request)


_Steps = tuple[FieldDescriptor, ...]


def _places(kind: Descriptor, prefix: str, steps: _Steps) -> Iterator[tuple[str, _Steps]]:
    for field in kind.fields:
        path, here = prefix + field.name, (*steps, field)
        if field.is_repeated:
            path += "[0]"
        if field.type == FieldDescriptor.TYPE_STRING:
            yield path, here
        elif field.message_type is None:
            continue
        elif field.message_type.GetOptions().map_entry:
            yield path.removesuffix("[0]"), here
        elif field.message_type not in [s.message_type for s in steps]:
            yield from _places(field.message_type, path + ".", here)


def _put(message: Any, steps: _Steps, text: str) -> None:
    field, *rest = steps
    value = getattr(message, field.name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        if field.message_type.fields_by_name["value"].message_type is not None:
            value[text].SetInParent()
        else:
            value[text] = type(next(iter(value.values()), "x"))("x")
    elif not rest:
        if field.is_repeated:
            value.append(text)
        else:
            setattr(message, field.name, text)
    else:
        _put(value.add() if field.is_repeated else value, tuple(rest), text)
