"""The most bytes that a page may fill in a reply.

A page of a list ends early (AIP-158) so that its reply does not become too large for its carrier:
gRPC clients accept messages of up to 4 MiB by default, and the sidecar limits the messages that it
transcodes. Sizes are upper bounds that are computed from plain values, because a page is cut before
its reply is encoded.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, TypeVar

from google.protobuf.message import Message

T = TypeVar("T")

#: The most bytes of a page over gRPC, and of one over REST, as JSON or as a file.
GRPC_BYTES: Final = 3_500 * 1024
REST_BYTES: Final = 8_000 * 1024

#: The most bytes that a value takes besides its text: over gRPC its tag and length; over REST its
#: name, quotes and comma, and the whole of a number or of the name of an enum value.
_GRPC_LEAF, _REST_LEAF = 16, 160
#: The most bytes of a decimal as text over gRPC.
_DECIMAL = 48
#: Bytes that the sidecar's JSON escapes to six bytes, and to two; and first bytes of characters of
#: which some (invisible ones, such as U+FEFF) are escaped to six or twelve.
_SIX: Final = bytes(range(0x20)) + b"<>\x7f"
_TWO: Final = b'"\\'
_UNSEEN: Final = b"\xc2\xd8\xdb\xdc\xe1\xe2\xef\xf0\xf3"


def room_of(surface: str | None) -> int:
    """The most bytes of a page for a surface, as audit entries name it (REST, GRPC …)."""
    return REST_BYTES if surface == "REST" else GRPC_BYTES


def count_fitting(items: Sequence[T], size: Callable[[T], int], most: int) -> int:
    """The number of first items that fit into ``most`` bytes together; at least one, if there are
    items."""
    total = 0
    for count, item in enumerate(items):
        total += size(item)
        if total > most and count:
            return count
    return len(items)


def value_size(value: Any, surface: str | None) -> int:
    """The most bytes that a plain value takes in a reply, with all its parts."""
    return _json_size(value) if surface == "REST" else _proto_size(value)


def _json_size(value: Any) -> int:
    match value:
        case None:
            return 0
        case str():
            data = value.encode("utf-8", "surrogatepass")
            if data.isascii() and value.isalnum():
                return _REST_LEAF + len(data)
            six, two, unseen = (_count_bytes(data, some) for some in (_SIX, _TWO, _UNSEEN))
            return _REST_LEAF + len(data) + 5 * six + two + 8 * unseen
        case bytes():
            return _REST_LEAF + 2 * len(value)  # base64 or hexadecimal
    parts = _parts_of(value)
    return _REST_LEAF + sum(map(_json_size, parts))


def _count_bytes(data: bytes, some: bytes) -> int:
    """The number of bytes of ``data`` that are in ``some``."""
    return len(data) - len(data.translate(None, some))


def _proto_size(value: Any) -> int:
    match value:
        case None:
            return 0
        case str():
            return _GRPC_LEAF + len(value.encode("utf-8", "surrogatepass"))
        case bytes():
            return _GRPC_LEAF + 2 * len(value)
        case Decimal():
            return _GRPC_LEAF + _DECIMAL
        case Message():
            return _GRPC_LEAF + value.ByteSize()
    return _GRPC_LEAF + sum(map(_proto_size, _parts_of(value)))


def _parts_of(value: Any) -> Sequence[Any]:
    """The parts of a value; empty for a number, a time or a member of an enum."""
    match value:
        case Mapping():
            return [*value.keys(), *value.values()]
        case Sequence() | set() | frozenset():
            return list(value)
        case Message():
            return [part for _, part in value.ListFields()]
    if dataclasses.is_dataclass(value):
        return [getattr(value, field.name) for field in dataclasses.fields(value)]
    # a row of the database
    return list(value.values()) if hasattr(value, "values") else []
