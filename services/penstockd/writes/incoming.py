"""Turns records that callers send into rows for the store, after checking what they may set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from google.protobuf import json_format
from google.protobuf.message import Message

from penstockd.catalog import Dataset, Field, Kind
from penstockd.catalog.keys import key_problems
from penstockd.catalog.leniency import STRICT, Leniency
from penstockd.catalog.record import Codec, byte_counter, item_counter
from penstockd.catalog.rules import Rules
from penstockd.catalog.structs import MAX_STRUCT_WIRE_BYTES
from penstockd.catalog.values import ValueRefused, value_checker
from penstockd.errors import PermissionDenied, ValueInvalid, Violation
from penstockd.policy.view import View
from penstockd.query import FieldUnknown
from penstockd.store.rows import stored_row

#: The most items of one list or map of a record in a call of its own or in a batch, whatever the
#: model allows; only an import may have more.
MAX_ELEMENTS = 10_000


class Incoming:
    """Reads records as rows of some fields for the store, with every value checked."""

    def __init__(self, view: View, fields: Sequence[Field], leniency: Leniency = STRICT) -> None:
        dataset = view.dataset
        self.fields = tuple(fields)
        self._view = view
        self._key = [f.path for f in dataset.key_fields]
        self._rules = Rules.of(dataset)
        self._codec = Codec(dataset, fields)
        self._needed = list(_find_needed(dataset, self._rules, self.fields))
        self._checkers = [value_checker(f, leniency) for f in fields]
        self._counted = [
            (f.path, item_counter(f), *self._rules.most_items(f.path, MAX_ELEMENTS))
            for f in fields
            if f.repeated
        ]
        too_long = f"is longer than {MAX_STRUCT_WIRE_BYTES >> 10} KiB as a message"
        self._counted += [
            (f.path, byte_counter(f), MAX_STRUCT_WIRE_BYTES, too_long)
            for f in fields
            if f.kind is Kind.STRUCT
        ]

    def row(self, record: Message, *, whole: bool = False) -> list[Any]:
        """The row of an existing record, of which the fields may be a part.

        Raises ValueInvalid with a violation for each bad value, the key included. Rules over
        several fields are checked if the fields are the ``whole`` of what the caller may write.
        """
        row, violations = self.values(record)
        if not violations:
            violations = self._find_cleared(row)
            row = stored_row(self.fields, row)
            problems = self._rules.row(self.fields, self._codec, row)
            violations += [Violation(*p) for p in problems if p.path or whole]
        if violations:
            raise refuse_values(violations)
        return row

    def part(self, record: Message) -> list[Any]:
        """The row of what merges with a stored record: the rules are for what results.

        Raises ValueInvalid for values that their fields cannot hold.
        """
        row, violations = self.values(record)
        if violations:
            raise refuse_values(violations)
        return stored_row(self.fields, row)

    def new_row(self, record: Message) -> list[Any]:
        """The row of a new record, in which the values that are not set must be valid, too."""
        row = self.row(record, whole=True)
        if violations := find_lacking(self._view, self.fields):
            raise refuse_values(violations)
        return row

    def _find_cleared(self, row: Sequence[Any]) -> list[Violation]:
        """The required members that are cleared in a message that may stay."""
        return [
            Violation(path, "value is required")
            for at, path, beside in self._needed
            if row[at] is None and (beside is None or any(row[i] is not None for i in beside))
        ]

    def values(self, record: Message) -> tuple[list[Any], list[Violation]]:
        """The canonical values of a record, and its faults apart from rules."""
        # Check counts and sizes before contents, which take a thousand times as long.
        violations = [
            Violation(path, problem)
            for path, items, most, problem in self._counted
            if items(record) > most
        ]
        if violations:
            return [], violations
        try:
            row = self._codec.row(record)
        except (KeyError, OverflowError, ValueError, json_format.SerializeToJsonError):
            # In a repeated field: a number that its type lacks, or a time.
            return [], [Violation("", "contains an enum value or a time that does not exist")]
        for i, (field, check) in enumerate(zip(self.fields, self._checkers, strict=True)):
            if row[i] is not None:
                try:
                    row[i] = check(row[i])
                except ValueRefused as exc:
                    violations.append(Violation(field.path, str(exc)))
        found = key_problems(self._view.dataset, [getattr(record, path) for path in self._key])
        violations[:0] = [Violation(*problem) for problem in found]
        return row, violations


def _find_needed(
    dataset: Dataset, rules: Rules, fields: Sequence[Field]
) -> Iterator[tuple[int, str, list[int] | None]]:
    """The required members of messages among ``fields``: each with its place, its path and the
    places of all leaves of its message; None in place of these if some are not among ``fields``."""
    for at, field in enumerate(fields):
        need, (holder, dot, _) = rules.needs.get(field.path), field.path.rpartition(".")
        if not dot or need is None or not need.required:
            continue
        every = [f for f in dataset.fields if f.path.startswith(f"{holder}.")]
        beside = [i for i, f in enumerate(fields) if f in every]
        yield at, field.path, beside if len(beside) == len(every) else None


def refuse_values(violations: Sequence[Violation]) -> ValueInvalid:
    """The error for violations; its message is that of the first."""
    first = violations[0]
    message = f"{first.field}: {first.description}" if first.field else first.description
    return ValueInvalid(message, violations=violations)


def find_lacking(view: View, fields: Sequence[Field]) -> list[Violation]:
    """The faults of new records that have only ``fields``.

    Fields that the caller does not see are not named.
    """
    found = []
    for problem in Rules.of(view.dataset).lacking(fields):
        if view.field(problem.path) is not None:
            found.append(Violation(*problem))
        else:
            found.append(Violation("", "lacks a value that you may not write"))
    return list(dict.fromkeys(found))


def check_fields(view: View, paths: Sequence[str]) -> None:
    """Raise FieldUnknown or PermissionDenied for a path that the caller may not write.

    Fields that the hub writes itself are accepted, and ignored (AIP-203).
    """
    writable = {f.path for f in view.writable}
    for path in paths:
        field = view.field(path)
        if field is None:
            raise FieldUnknown(path)
        if not field.output_only and field.path not in writable:
            why = ": you do not see all members of it" if view.stripping(field) else ""
            raise PermissionDenied(f"you may not write {path}{why}")


def check_settable(view: View, records: Sequence[Message]) -> None:
    """``check_fields`` for everything that is set in any of many records."""
    settable = {f.path for f in view.writable}
    if all(f.output_only or f.path in settable for f in view.dataset.fields):
        return
    check_fields(view, sorted({p for r in records for p in populated_paths(view.dataset, r)}))


def populated_paths(dataset: Dataset, record: Message) -> list[str]:
    """The paths of the leaves that are set in a record."""
    return [path for path in _set_paths(record, "") if path in dataset.by_path]


def _set_paths(message: Message, prefix: str) -> Iterator[str]:
    for fd, value in message.ListFields():
        path = prefix + fd.name
        yield path
        if fd.message_type is not None and not fd.is_repeated:
            yield from _set_paths(value, path + ".")
