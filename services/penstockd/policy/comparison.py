"""Which fields of a record differ between two of its states."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any

from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from penstockd.catalog import Dataset, Field, Kind
from penstockd.catalog.record import holds_its_message

#: What a message holds in a leaf, as something that is equal if the leaf is; None: it is not set.
Read = Callable[[Any], Any]


class Comparison:
    """Compares messages of a dataset in some of its fields, exactly: of floats the two zeros
    differ and NaN is NaN; decimals differ in the digits that they are written with.
    """

    def __init__(self, dataset: Dataset, fields: Sequence[Field]) -> None:
        self._level = _Level(dataset.message_type, fields, 0)

    def differing(self, one: Message, other: Message) -> list[str]:
        """The paths of the fields in which they differ, in the order of the schema."""
        found: list[str] = []
        self._level.compare(one, other, found)
        return found


class _Level:
    """One message of a record: its leaves, and the messages within it."""

    def __init__(self, message: Descriptor, fields: Sequence[Field], depth: int) -> None:
        self._parts: list[tuple[str, str, Read | None, _Level | None]] = []
        within: dict[str, list[Field]] = {}
        for field in fields:
            within.setdefault(field.steps[depth], []).append(field)
        for name, leaves in within.items():
            leaf = leaves[0]
            if len(leaf.steps) == depth + 1:
                self._parts.append((name, leaf.path, _read(message, leaf, name), None))
                continue
            inner = message.fields_by_name[name].message_type
            assert inner is not None, "a path goes through messages only"
            self._parts.append((name, "", None, _Level(inner, leaves, depth + 1)))

    def compare(self, one: Any, other: Any, found: list[str]) -> None:
        """Add the paths that differ. A message that is not there is None, and so are its leaves."""
        for name, path, read, level in self._parts:
            if level is not None:
                level.compare(_held(one, name), _held(other, name), found)
            elif read is not None:
                here = None if one is None else read(one)
                if here != (None if other is None else read(other)):
                    found.append(path)


def _held(message: Any, name: str) -> Any:
    return getattr(message, name) if message is not None and message.HasField(name) else None


def _read(message: Descriptor, field: Field, name: str) -> Read:
    if field.repeated:
        holder = message_factory.GetMessageClass(message)
        # Within a message that it does not hold, an empty one is as none.
        empty = b"" if holds_its_message(field) else None

        def written(held: Any) -> bytes | None:
            alone = holder()
            getattr(alone, name).MergeFrom(getattr(held, name))
            return alone.SerializeToString(deterministic=True) or empty

        return written
    if field.kind in (Kind.FLOAT, Kind.DOUBLE):
        pack = struct.Struct("<d").pack
        if not field.presence:
            return lambda held: pack(getattr(held, name))
        return lambda held: pack(getattr(held, name)) if held.HasField(name) else None
    if field.presence:
        return lambda held: getattr(held, name) if held.HasField(name) else None
    if field.kind is Kind.DATE:
        return lambda held: getattr(held, name) or None  # there is no empty date
    return lambda held: getattr(held, name)
