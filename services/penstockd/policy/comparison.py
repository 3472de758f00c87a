"""Which fields of a record differ between two of its states."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from penstockd.catalog import Dataset, Field, Kind

#: Reads a leaf of a message as a value that is equal if and only if the leaf is; None if unset.
Read = Callable[[Any], Any]


class MessageComparison:
    """Compares some fields of a dataset's messages exactly: the two zeros of floats differ, NaN
    equals NaN, and decimals differ if they are written with different digits.
    """

    def __init__(self, dataset: Dataset, fields: Sequence[Field]) -> None:
        self._leaves = [_Leaf(dataset, f) for f in fields]
        # A field of the key comes first, twice, so that attrgetter always returns a tuple.
        twice = [dataset.key_fields[0].path] * 2
        self._values = attrgetter(*twice, *[f.path for f in fields])

    def differing(self, one: Message, other: Message) -> list[str]:
        """The paths of the fields in which the messages differ, in the order of the schema."""
        # Reading all values at once is quick and decides most fields.
        pairs = zip(self._leaves, self._values(one)[2:], self._values(other)[2:], strict=True)
        return [leaf.path for leaf, x, y in pairs if leaf.differs(x, y, one, other)]


class _Leaf:
    """One field, and how its values are compared."""

    __slots__ = ("_certain", "_decided", "_parents", "_read", "_unset", "path")

    def __init__(self, dataset: Dataset, field: Field) -> None:
        self.path, self._parents = field.path, field.steps[:-1]
        holder = dataset.message_type
        for step in self._parents:
            inner = holder.fields_by_name[step].message_type
            assert inner is not None, "a path goes through messages only"
            holder = inner
        self._read = _make_read(holder, field, field.steps[-1])
        floating = field.kind in (Kind.FLOAT, Kind.DOUBLE)
        # Unequal values differ, except NaN, which may also occur in lists and maps.
        self._decided = not floating and not field.repeated
        # Equal values are the same: the field has no presence that could differ.
        self._certain = not floating and not self._parents and not field.presence
        # An unset time or Struct reads as one that could be set, and is truthy.
        self._unset = field.kind in (Kind.TIMESTAMP, Kind.STRUCT)

    def differs(self, x: Any, y: Any, one: Message, other: Message) -> bool:
        """Whether the field differs, being ``x`` in one message and ``y`` in the other."""
        if x == y:
            if self._certain or (x and not self._unset):
                return False
        elif self._decided:
            return True
        return bool(self._read_value(one) != self._read_value(other))

    def _read_value(self, message: Any) -> Any:
        for step in self._parents:
            if not message.HasField(step):
                return None
            message = getattr(message, step)
        return self._read(message)


def _make_read(message: Descriptor, field: Field, name: str) -> Read:
    if field.repeated:
        holder = message_factory.GetMessageClass(message)

        def written(held: Any) -> bytes:
            alone = holder()
            getattr(alone, name).MergeFrom(getattr(held, name))
            return alone.SerializeToString(deterministic=True)

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
