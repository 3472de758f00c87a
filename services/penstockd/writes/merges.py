"""Merge patches (RFC 7396) of maps and Structs: what they make of the values that are stored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from google.protobuf.message import Message

from penstockd.budget import offload_large
from penstockd.catalog import Field
from penstockd.catalog.merging import MergePatch
from penstockd.catalog.record import Codec
from penstockd.catalog.scalars import ValueRefused
from penstockd.errors import ValueInvalid, Violation
from penstockd.store.rows import stored_row
from penstockd.store.writer import WriteTransaction
from penstockd.writes.incoming import Incoming, refuse_values
from penstockd.writes.outgoing import ReplyView, known_record

#: What merges with the stored values, by the paths of fields.
Merges = Mapping[str, MergePatch]
#: Without a merge patch.
NO_MERGES: Merges = {}
#: The report for values that are wrong only together with hidden ones.
UNREAD = "breaks a rule together with fields that you may not read"


class StoredMerge:
    """How one call changes maps and Structs of a record; there may be none."""

    def __init__(self, reply: ReplyView, patches: Mapping[Field, MergePatch]) -> None:
        self._reply, self._patches = reply, patches
        self._codec = Codec(reply.view.dataset, [*patches])

    def __bool__(self) -> bool:
        return bool(self._patches)

    async def row(
        self, transaction: WriteTransaction, key: str, record: Message, incoming: Incoming
    ) -> list[Any]:
        """The row of a record that is merged with the stored one, which is locked. Raises
        ValueInvalid, which tells nothing of values that the caller does not read."""
        view, fields = self._reply.view, self._codec.fields
        read = [*view.dataset.key_fields, *fields]
        stored = await known_record(transaction, view, key, read)
        size = stored.ByteSize() + record.ByteSize()
        try:
            return await offload_large(size, self._merge, stored, record, incoming)
        except ValueInvalid as invalid:
            if self._reply.reads_in_clear(fields):
                raise
            raise refuse_values([self._veil(v) for v in invalid.violations]) from None

    def _merge(self, stored: Message, record: Message, incoming: Incoming) -> list[Any]:
        values, problems = list[Any](), []
        for field, value in zip(self._codec.fields, self._codec.row(stored), strict=True):
            try:
                values.append(self._patches[field].merged(value))
            except ValueRefused as refused:
                problems.append(Violation(field.path, refused.reason))
        if problems:
            raise refuse_values(problems)
        whole = type(record)()
        whole.CopyFrom(record)
        for field in self._codec.fields:
            _clear_field(whole, field)
        whole.MergeFrom(self._codec.message(stored_row(self._codec.fields, values)))
        return incoming.row(whole)

    def _veil(self, violation: Violation) -> Violation:
        """The fault of a value of which a part is stored."""
        at = violation.field.partition("[")[0]
        merged = any(_overlap_paths(at, field.path) for field in self._codec.fields)
        return Violation(violation.field, UNREAD) if merged else violation


def _overlap_paths(one: str, other: str) -> bool:
    """Whether one path is the other, holds it, or is within it; the record's own is empty."""
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.") or not one


def _clear_field(message: Any, field: Field) -> None:
    *steps, last = field.steps
    for step in steps:
        message = getattr(message, step)
    message.ClearField(last)
