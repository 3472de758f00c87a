"""Bodies of calls: JSON to the request of a method, strictly.

Everything that is not understood is named and refused: see ``Problems``.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message

from penstockd.access.masks import quote_step
from penstockd.catalog.merging import MergePatch
from penstockd.catalog.oneofs import several_set, true_oneofs
from penstockd.catalog.scalars import ValueRefused, type_name
from penstockd.errors import RequestTooLarge, Violation
from penstockd.rpc.bounds import limit_of
from penstockd.rpc.rest.problems import Problems, join_path
from penstockd.rpc.rest.records import BlindReader, RecordBodies
from penstockd.rpc.rest.values import fill_message, json_value, known_message, text_value

#: Finds the reader of a message's records; None if the message is no record.
FindReader = Callable[[Descriptor], RecordBodies | BlindReader | None]


@dataclass(slots=True)
class BodyReading:
    """One body on its way in."""

    find: FindReader
    problems: Problems = field(default_factory=Problems)
    #: The paths of the members that are present, by proto names: what a merge patch changes.
    present: list[str] = field(default_factory=list)
    #: Whether the body is a merge patch (RFC 7396): then maps merge, too, in which null clears, and
    #: an object without members changes nothing.
    patches: bool = False
    #: How the maps and Structs of the record change, by their paths in it.
    merges: dict[str, MergePatch] = field(default_factory=dict)

    def read(self, value: Any, message: Message, path: str = "", mask: str | None = "") -> None:
        """Put the members of an object into a message. ``path`` is where the object stands in the
        body, and ``mask`` the path of its field in a mask: None within lists and maps, which no
        mask leads into."""
        kind: Any = message.DESCRIPTOR
        records = self.find(kind)
        if records is not None:
            self._read_record(records, value, message, path, mask)
            return
        if type(value) is not dict:
            self.problems.add(path, f"must be an object, not {type_name(value)}")
            return
        members = _members_of(kind)
        given: dict[str, str] = {}
        for name, inner in value.items():
            known, at = members.get(name), join_path(path, name)
            if known is None:
                self.problems.unknown(at, (f.json_name for f in kind.fields))
            elif known.name in given:
                self.problems.add(at, "is given twice, by both of its names")
            else:
                given[known.name] = name
                inside = None if mask is None else join_path(mask, known.name)
                self._read_member(known, inner, message, at, inside)
        self._check_oneofs(kind, value, given, path)

    def _read_record(
        self,
        records: RecordBodies | BlindReader,
        value: Any,
        message: Message,
        path: str,
        mask: str | None,
    ) -> None:
        made = records.read(value, self.problems, path, patches=self.patches)
        if made.message is not None:
            message.MergeFrom(made.message)
        if mask is not None:
            self.present += made.present
        self.merges |= made.merges

    def _read_member(
        self, known: FieldDescriptor, value: Any, message: Message, path: str, mask: str | None
    ) -> None:
        of = known.message_type
        merged = not known.is_repeated and value is not None and of and not known_message(of)
        by_entry = self.patches and _is_map(known) and type(value) is dict and mask is not None
        if mask is not None and not merged and not by_entry:
            self.present.append(mask)
        if by_entry and mask is not None:
            self.present += [f"{mask}.{quote_step(name)}" for name in value]
            value = {name: item for name, item in value.items() if item is not None}
        if known.is_repeated:
            if value is not None:
                read = self._read_map if _is_map(known) else self._read_list
                read(known, value, message, path)
        elif not merged and value is not None:
            self._put(known, value, message, path)
        elif merged:
            inner = getattr(message, known.name)
            if not self.patches:
                inner.SetInParent()
            self.read(value, inner, path, mask)

    def _put(self, known: FieldDescriptor, value: Any, message: Message, path: str) -> None:
        try:
            if known.message_type is None:
                setattr(message, known.name, json_value(known)(value))
            else:
                read = known_message(known.message_type)
                assert read is not None, "the caller asked"
                fill_message(getattr(message, known.name), read(value))
        except ValueRefused as refused:
            self.problems.add(path, refused.reason)

    def _read_list(self, known: FieldDescriptor, value: Any, message: Any, path: str) -> None:
        if type(value) is not list:
            self.problems.add(path, f"must be an array, not {type_name(value)}")
            return
        _check_count(known, path, len(value))
        items = getattr(message, known.name)
        for i, item in enumerate(value):
            at = f"{path}[{i}]"
            if item is None:
                self.problems.add(at, "must not be null")
            elif known.message_type is not None:
                self.read(item, items.add(), at, None)
            else:
                self._append(known, items, item, at)

    def _append(self, known: FieldDescriptor, items: Any, value: Any, path: str) -> None:
        try:
            items.append(json_value(known)(value))
        except ValueRefused as refused:
            self.problems.add(path, refused.reason)

    def _read_map(self, known: FieldDescriptor, value: Any, message: Any, path: str) -> None:
        if type(value) is not dict:
            self.problems.add(path, f"must be an object, not {type_name(value)}")
            return
        _check_count(known, path, len(value))
        assert known.message_type is not None, "a map has entries"
        kinds, entries = known.message_type.fields_by_name, getattr(message, known.name)
        for name, item in value.items():
            at = f"{path}[{name[:40]!r}]"
            try:
                key = text_value(kinds["key"])(name)
                if item is None:
                    raise ValueRefused("must not be null")
                if kinds["value"].message_type is not None:
                    self.read(item, entries[key], at, None)
                else:
                    entries[key] = json_value(kinds["value"])(item)
            except ValueRefused as refused:
                self.problems.add(at, refused.reason)

    def _check_oneofs(
        self, kind: Descriptor, value: Mapping[str, Any], given: Mapping[str, str], path: str
    ) -> None:
        for oneof in true_oneofs(kind):
            names = [given[f.name] for f in oneof.fields if f.name in given]
            chosen = [name for name in names if value[name] is not None]
            if len(chosen) > 1:
                self.problems.add(join_path(path, oneof.name), several_set(iter(chosen)))


@functools.cache
def _members_of(kind: Descriptor) -> Mapping[str, FieldDescriptor]:
    """The fields of a message by their proto and JSON names."""
    return {f.name: f for f in kind.fields} | {f.json_name: f for f in kind.fields}


def _check_count(known: FieldDescriptor, path: str, count: int) -> None:
    """Raise RequestTooLarge for too many items, before any of them is made."""
    if count > (most := limit_of(known)):
        problem = f"must contain no more than {most} item(s)"
        raise RequestTooLarge(f"{path} {problem}", violations=[Violation(path, problem)])


def _is_map(known: FieldDescriptor) -> bool:
    return known.message_type is not None and known.message_type.GetOptions().map_entry
