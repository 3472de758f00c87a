"""The oneofs of a dataset: groups of members of which a record sets at most one.

Protobuf keeps that rule within messages; files and partial updates need a check. A oneof with a
single member is how ``optional`` is encoded, and needs no rule.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.descriptor import Descriptor

from penstockd.catalog.model import Dataset, Field, inner_message


@dataclass(frozen=True, slots=True, eq=False)
class Oneof:
    """A oneof by its path, such as "billing.recipient", with the leaves of each of its members."""

    path: str
    members: tuple[tuple[Field, ...], ...]

    def places(self, fields: Sequence[Field]) -> list[list[int]]:
        """The indexes of each member's leaves in ``fields``."""
        at = {f: i for i, f in enumerate(fields)}
        return [[at[f] for f in member if f in at] for member in self.members]

    def holds(self, field: Field) -> bool:
        """Whether a field is a leaf of one of the members."""
        return any(field in member for member in self.members)


@functools.cache
def oneofs_of(dataset: Dataset) -> tuple[Oneof, ...]:
    """The oneofs of a dataset outside its lists and maps."""
    return tuple(_find_oneofs(dataset, dataset.message_type, ""))


def _find_oneofs(dataset: Dataset, message: Descriptor, prefix: str) -> Iterator[Oneof]:
    for oneof in true_oneofs(message):
        paths = [prefix + fd.name for fd in oneof.fields]
        members = (
            tuple(f for f in dataset.fields if f.path == p or f.path.startswith(p + "."))
            for p in paths
        )
        yield Oneof(prefix + oneof.name, tuple(members))
    for fd in message.fields:
        inner = inner_message(fd)
        if inner is not None and not fd.is_repeated:
            yield from _find_oneofs(dataset, inner, f"{prefix}{fd.name}.")


def true_oneofs(message: Descriptor) -> list[Any]:
    """The oneofs of a message that have several members: those of ``optional`` have one."""
    return [oneof for oneof in message.oneofs if len(oneof.fields) > 1]


class OneofCheck:
    """Finds rows of some fields that set several members of a oneof."""

    def __init__(self, dataset: Dataset, fields: Sequence[Field]) -> None:
        self._fields = tuple(fields)
        self._oneofs = [(o.path, o.places(fields)) for o in oneofs_of(dataset)]

    def problems(self, row: Sequence[Any]) -> Iterator[tuple[str, str]]:
        """The path and description of each fault of a row of values."""
        for path, members in self._oneofs:
            chosen = [m for m in members if any(row[i] is not None for i in m)]
            if len(chosen) > 1:
                yield (
                    path,
                    several_set(
                        next(self._fields[i].path for i in m if row[i] is not None) for m in chosen
                    ),
                )


def several_set(names: Iterator[str]) -> str:
    """The fault of a oneof in which these members are set."""
    return f"is a oneof, and several of its members are set: {', '.join(names)}"
