"""Refuses U+0000, which neither the store nor XML can hold, in every text of every request.

Protobuf strings may contain it, PostgreSQL's text cannot. One rule on arrival covers fields,
elements, keys of maps and nested messages, ``google.protobuf.Struct`` included; bytes are not text.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from penstockd.budget import run_offloaded
from penstockd.errors import ValueInvalid

FORBIDDEN = "\0"

#: The number of values that the event loop checks; a thread takes over for larger messages.
_INLINE = 2000
#: Down to this depth, elements of repeated fields that hold no zero byte are skipped whole.
_SIEVED = 3

_TEXT, _MESSAGE = FieldDescriptor.TYPE_STRING, FieldDescriptor.CPPTYPE_MESSAGE


class _Large(Exception):
    """The message has more values than the event loop should check."""


async def refuse_null(message: Message, prefix: str = "") -> None:
    """Raise ValueInvalid, naming the field, for the first text that holds U+0000.

    ``prefix`` is left out of the names of fields.
    """
    try:
        found = _find_null(message, _INLINE)
    except _Large:
        found = await run_offloaded(_find_null, message)
    if found is None:
        return
    path, position = found
    field = path.removeprefix(prefix)
    problem = f"holds the forbidden character U+0000 at position {position + 1}"
    raise ValueInvalid.of(field, problem)


def find_null(message: Message) -> str | None:
    """The path of the first field that holds U+0000, such as "customers[1].name", or None."""
    found = _find_null(message)
    return found[0] if found is not None else None


def _find_null(message: Message, most: int | None = None) -> tuple[str, int] | None:
    for count, (path, text) in enumerate(_list_texts(message, "", 0)):
        if (position := text.find(FORBIDDEN)) >= 0:
            return path, position
        if most is not None and count >= most:
            raise _Large
    return None


def _list_texts(message: Message, prefix: str, depth: int) -> Iterator[tuple[str, str]]:
    """The texts of a message with their paths, and "" for each other value that was passed."""
    for field, value in message.ListFields():
        path = prefix + field.name
        if field.message_type is not None and _is_map_entry(field.message_type):
            yield from _map_texts(field, value, path, depth)
        elif field.type == _TEXT:
            if field.is_repeated:
                yield from ((f"{path}[{i}]", text) for i, text in enumerate(value))
            else:
                yield path, value
        elif field.cpp_type == _MESSAGE:
            if field.is_repeated:
                yield from _element_texts(value, path, depth)
            else:
                yield from _list_texts(value, path + ".", depth + 1)
        else:
            yield path, ""


def _element_texts(elements: Any, path: str, depth: int) -> Iterator[tuple[str, str]]:
    for i, element in enumerate(elements):
        yield path, ""
        if depth >= _SIEVED or b"\0" in element.SerializeToString():
            yield from _list_texts(element, f"{path}[{i}].", depth + 1)


def _map_texts(field: Any, entries: Any, path: str, depth: int) -> Iterator[tuple[str, str]]:
    kinds = field.message_type.fields_by_name
    for key in entries:
        name = f"{path}[{str(key)[:40]!r}]"
        yield name, key if kinds["key"].type == _TEXT else ""
        if kinds["value"].type == _TEXT:
            yield name, entries[key]
        elif kinds["value"].cpp_type == _MESSAGE:
            yield from _list_texts(entries[key], name + ".", depth + 1)


@functools.cache
def _is_map_entry(kind: Descriptor) -> bool:
    return kind.GetOptions().map_entry
