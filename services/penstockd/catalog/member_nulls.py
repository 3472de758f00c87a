"""Members of lists and maps of messages that JSON shows as null, because a View masks them to null.

The View leaves them out of every value, like those that it hides. In JSON they are there, so that
one can tell them from hidden ones; in messages that are unset nothing is.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from penstockd.catalog.model import Field, Kind


@dataclass(frozen=True)
class NullMembers:
    """The members of one message that are null, and those that hold such members: messages, and
    lists and maps of messages. By their JSON names."""

    names: tuple[str, ...]
    nested: Mapping[str, NullMembers]
    many: Mapping[str, NullItems]

    @property
    def empty(self) -> bool:
        """Whether no member is null."""
        return not (self.names or self.nested or self.many)

    def fill(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """A message as JSON data, with these members."""
        filled = {**message, **dict.fromkeys(self.names)}
        for name in self.nested.keys() & filled.keys():
            filled[name] = self.nested[name].fill(filled[name])
        for name in self.many.keys() & filled.keys():
            filled[name] = self.many[name].fill(filled[name])
        return filled


@dataclass(frozen=True)
class NullItems:
    """The same for a list or a map of messages."""

    is_map: bool
    message: NullMembers

    def fill(self, value: Any) -> Any:
        """A list or a map as JSON data, with these members."""
        if self.is_map:
            return {key: self.message.fill(held) for key, held in value.items()}
        return [self.message.fill(held) for held in value]


def find_null_items(
    field: Field, nulls: Collection[Field], hidden: Collection[Field]
) -> NullItems | None:
    """The members of a list or map that are among ``nulls``; None if there are none. Members that
    are not shown are among ``nulls`` or ``hidden``."""
    if field.recursive or not field.members:
        return None
    message = _find_null_members(field.members, len(field.steps), nulls, hidden)
    return None if message.empty else NullItems(field.kind is Kind.MAP, message)


def _find_null_members(
    fields: Sequence[Field], depth: int, nulls: Collection[Field], hidden: Collection[Field]
) -> NullMembers:
    names: list[str] = []
    nested: dict[str, NullMembers] = {}
    many: dict[str, NullItems] = {}
    for name, run in itertools.groupby(fields, lambda f: f.json_steps[depth]):
        leaves = list(run)
        if all(f in hidden or f in nulls for f in leaves):
            # A message that shows nothing but nulls is null as a whole.
            names += [name] * any(f in nulls for f in leaves)
        elif len(leaves[0].steps) > depth + 1:
            inner = _find_null_members(leaves, depth + 1, nulls, hidden)
            nested |= {} if inner.empty else {name: inner}
        elif items := find_null_items(leaves[0], nulls, hidden):
            many[name] = items
    return NullMembers(tuple(names), nested, many)
