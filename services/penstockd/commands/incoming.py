"""Records as callers send them: what they may set, checked, as rows that the store takes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from google.protobuf.message import Message

from penstockd.catalog import Dataset, Field
from penstockd.catalog.elements import repeated_parser
from penstockd.catalog.record import Codec
from penstockd.catalog.scalars import ValueRefused, checker
from penstockd.errors import PermissionDenied, ValueInvalid, Violation
from penstockd.policy.view import View
from penstockd.query import FieldUnknown
from penstockd.store.rows import stored_row

MAX_KEY_BYTES = 512


class Incoming:
    """Reads records as rows of some fields that the store takes, every value checked."""

    def __init__(self, dataset: Dataset, fields: Sequence[Field]) -> None:
        self.fields = tuple(fields)
        self._key = dataset.key.path
        self._codec = Codec(dataset, fields)
        self._checkers = [repeated_parser(f) if f.repeated else checker(f) for f in fields]

    def row(self, record: Message, *, place: str = "") -> list[Any]:
        """The row of a record.

        ``place`` names the record in violations ("customers[3]."). Raises ValueInvalid with a
        violation for each bad value, the key included.
        """
        violations = []
        row = self._codec.row(record)
        for i, (field, check) in enumerate(zip(self.fields, self._checkers, strict=True)):
            if row[i] is not None:
                try:
                    row[i] = check(row[i])
                except ValueRefused as exc:
                    violations.append(Violation(place + field.path, str(exc)))
        if problem := key_problem(getattr(record, self._key)):
            violations.insert(0, Violation(place + self._key, problem))
        if violations:
            first = violations[0]
            raise ValueInvalid(f"{first.field}: {first.description}", violations=violations)
        return stored_row(self.fields, row)


def check_fields(view: View, paths: Sequence[str]) -> None:
    """Raise FieldUnknown or PermissionDenied for a path that the caller may not write.

    What the hub writes itself is let through: it is ignored (AIP-203).
    """
    writable = {f.path for f in view.writable}
    for path in paths:
        field = view.field(path)
        if field is None:
            raise FieldUnknown(path)
        if not field.output_only and field.path not in writable:
            raise PermissionDenied(f"you may not write {path}")


def key_problem(key: str) -> str:
    """What is wrong with a record's key; "" if nothing is.

    A key is part of a path: it is not empty, not long, has neither "/" nor control characters, and
    is none of the segments that paths are normalised by.
    """
    if not key:
        return "is required"
    if len(key.encode()) > MAX_KEY_BYTES:
        return f"is longer than {MAX_KEY_BYTES} bytes"
    if "/" in key or not key.isprintable():
        return "holds a character that a key may not have"
    if key in (".", ".."):
        return f"may not be '{key}'"
    return ""


def populated(dataset: Dataset, record: Message) -> list[str]:
    """The paths of the leaves that are set in a record."""
    return [path for path in _set_paths(record, "") if path in dataset.by_path]


def _set_paths(message: Message, prefix: str) -> Iterator[str]:
    for fd, value in message.ListFields():
        path = prefix + fd.name
        yield path
        if fd.message_type is not None and not fd.is_repeated:
            yield from _set_paths(value, path + ".")
