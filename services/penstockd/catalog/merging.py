"""Merge patches of maps and Structs (RFC 7396): members that are given change, null removes.

A patch names members as a body does, by either of their names, and keys of maps in any spelling. It
is brought into the form of canonical data first (see ``elements``); then names alone decide what
merges.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ParamSpec

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from penstockd.catalog.elements import map_key_parser
from penstockd.catalog.load import map_key_kind
from penstockd.catalog.model import Field, Kind, inner_message
from penstockd.catalog.oneofs import several_set, true_oneofs
from penstockd.catalog.scalars import Parser, ValueRefused

P = ParamSpec("P")


@dataclass(frozen=True, slots=True)
class MergePatch:
    """What changes in the map or Struct that a record holds."""

    changes: Mapping[str, Any]
    _parse: Parser

    @classmethod
    def of(cls, field: Field, value: Mapping[str, Any], parse: Parser) -> MergePatch:
        """The patch in a body; ``parse`` reads values of the field. Raises ValueRefused."""
        changes = value
        if field.kind is Kind.MAP:
            assert field.map_key is not None, "a map has keys"
            changes = _read_map(field.map_key, field.element_message, value)
        return cls(changes, parse)

    def merged(self, stored: Any = None) -> Any:
        """The canonical value after the patch of a value, or of nothing. Raises ValueRefused."""
        return self._parse(merge_json(stored, self.changes))


def merge_json(target: Any, patch: Any) -> Any:
    """JSON data after a merge patch."""
    if not isinstance(patch, Mapping):
        return patch
    merged = dict(target) if isinstance(target, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_json(merged.get(name), value)
    return merged


def _read_map(kind: Kind, message: Descriptor | None, value: Any) -> Any:
    """The patch of a map, with canonical keys; what is no object is left for the parser."""
    if type(value) is not dict:
        return value
    parse, changes = map_key_parser(kind), {}
    for name, item in value.items():
        key = _read_within("key", parse, name)
        at = f"[{name[:40]!r}]"
        changes[key] = item if message is None else _read_within(at, _read_message, message, item)
    if len(changes) < len(value):
        raise ValueRefused("has a key twice, spelled in two ways")
    return changes


def _read_message(message: Descriptor, value: Any) -> Any:
    """The patch of a message, by JSON names. A member of a oneof that is set removes the others."""
    if type(value) is not dict:
        return value
    known, changes = _members_of(message), dict[str, Any]()
    for name, given in value.items():
        fd = known.get(name)
        if fd is None:
            raise ValueRefused(f"has the unknown member {name[:40]!r}")
        if fd.json_name in changes:
            raise ValueRefused(f"has the member {fd.json_name[:40]!r} twice")
        changes[fd.json_name] = _read_within(f".{fd.json_name}", _read_member, fd, given)
    for oneof in true_oneofs(message):
        names = [member.json_name for member in oneof.fields]
        chosen = [name for name in names if changes.get(name) is not None]
        if len(chosen) > 1:
            raise ValueRefused(several_set(iter(chosen)), (f".{oneof.name}",))
        if chosen:
            changes |= dict.fromkeys(name for name in names if name != chosen[0])
    return changes


def _read_member(fd: FieldDescriptor, value: Any) -> Any:
    of = inner_message(fd)
    if of is None:
        return value
    if not of.GetOptions().map_entry:
        return value if fd.is_repeated else _read_message(of, value)
    return _read_map(map_key_kind(of), inner_message(of.fields_by_name["value"]), value)


def _read_within(part: str, read: Callable[P, Any], *args: P.args, **kwargs: P.kwargs) -> Any:
    """What ``read`` gives for a part of a value."""
    try:
        return read(*args, **kwargs)
    except ValueRefused as refused:
        raise refused.within(part) from None


@functools.cache
def _members_of(message: Descriptor) -> Mapping[str, FieldDescriptor]:
    return {f.name: f for f in message.fields} | {f.json_name: f for f in message.fields}
