"""The reply to a writer: no more of a record than its caller may read now."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from google.protobuf.message import Message

from penstockd.calls import Call
from penstockd.catalog import MOVING, Dataset, Field
from penstockd.catalog.keys import key_paths
from penstockd.catalog.merging import MergePatch
from penstockd.catalog.record import Codec
from penstockd.catalog.scalars import ValueRefused
from penstockd.errors import EtagMismatch, RecordNotFound, Violation
from penstockd.policy.model import Action
from penstockd.policy.read import Get
from penstockd.policy.rendering import record_of
from penstockd.policy.view import View
from penstockd.store.rows import is_unchanged, stored_row
from penstockd.store.writer import Counts, WriteTransaction
from penstockd.writes.idempotency import Form
from penstockd.writes.incoming import Incoming, populated_paths
from penstockd.writes.report import Report

#: Begins a stored reply that has only what the call itself has set: no message begins with zero,
#: which would be the number of a field.
_OWN = b"\x00own"


class ReplyView:
    """What a reply to a write may show of a dataset.

    ``view`` is the View of the write. ``readable`` is its intersection with the caller's View for
    reading, under the current policy; None if the caller cannot read. Everything in the reply to a
    write is made here: records, etags, counts.
    """

    def __init__(self, call: Call, dataset: Dataset, *actions: Action) -> None:
        """Raise PermissionDenied unless the caller may do these actions."""
        self._call = call
        self.view = call.view(dataset, *actions)
        self.readable = call.reply_view(dataset, *actions)

    @property
    def shows_record(self) -> bool:
        """Whether the reply shows the record, and not only what the call itself has set."""
        return self._call.shows_record

    @shows_record.setter
    def shows_record(self, shows: bool) -> None:
        self._call.shows_record = shows

    def reads_in_clear(self, fields: Sequence[Field]) -> bool:
        """Whether the caller may read these fields of every record that it may write."""
        readable = self.readable
        if readable is None or not self.view.reads_all_rows:
            return False
        return all(f.output_only or readable.is_whole(f) for f in fields)

    async def read(self, transaction: WriteTransaction, key: str) -> Message | None:
        """The record as the caller may read it; None if it cannot read it."""
        if self.readable is None:
            return None
        record = await _read_record(transaction, self.readable, key)
        self.shows_record = record is not None
        return record

    async def etag(self, transaction: WriteTransaction, key: str) -> str:
        """The record's etag, for a caller who cannot read the record; "" if it is hidden."""
        if not self._gives("etag"):
            return ""
        record: Any = await _read_record(transaction, self.view, key, "etag")
        return "" if record is None else str(record.etag)

    async def mismatch(
        self,
        transaction: WriteTransaction,
        key: str,
        error: EtagMismatch,
        given: SetValues | None = None,
    ) -> EtagMismatch:
        """The error for the caller: with the record's etag, if it may read that, and the fields
        that differ from what it has ``given``, as far as it reads them in the clear."""
        record: Any = await self.read(transaction, key)
        if record is None or not record.etag:
            return error
        differing = [] if given is None else given.differing(self.view, record, self._may_show)
        return EtagMismatch(
            f"{error.message}: its etag is now '{record.etag}'",
            violations=[
                Violation("etag", f"is '{record.etag}' now"),
                *(Violation(path, "differs from what you sent") for path in differing),
            ],
        )

    def report(self, report: Report) -> Report:
        """A report for the caller.

        The fact that a record was unchanged reveals its content. So a caller that cannot read all
        that it writes sees unchanged records counted as updated.
        """
        counts = report.counts
        if not counts.unchanged or self.reads_in_clear(self.view.writable):
            return report
        told = Counts(counts.created, counts.updated + counts.unchanged)
        return Report(told, report.refused, report.problems)

    async def own(self, given: SetValues, etag: str) -> Message:
        """The key, the etag, and the values that the call itself has set."""
        self.shows_record = False
        record: Any = await given.message(self._showable(given))
        if etag and self._gives("etag"):
            record.etag = etag
        self.note_own(given, record)
        message: Message = record
        return message

    def note_own(self, given: SetValues, record: Message) -> None:
        """Note which fields a record has that shows only what the call itself has set: also those
        that it has set to a default or null."""
        dataset, shown = self.view.dataset, set(self._showable(given))
        shown |= {dataset.by_path[path] for path in populated_paths(dataset, record)}
        self._call.own_fields = [f for f in dataset.fields if f in shown]

    def _showable(self, given: SetValues) -> Sequence[Field]:
        return [f for f in given.fields if f.in_key or self._may_show(f)]

    def _may_show(self, field: Field) -> bool:
        """Whether a value of the caller's own may be shown to it: no mask for reading is undone."""
        return self.readable is None or self.readable.is_whole(field)

    def _gives(self, path: str) -> bool:
        shown = (self.view, self.readable) if self.readable is not None else (self.view,)
        return all(view.field(path) is not None for view in shown)


class SetValues:
    """The values that a call sets in a record."""

    def __init__(
        self,
        dataset: Dataset,
        fields: Sequence[Field],
        row: Sequence[Any],
        merges: Mapping[Field, MergePatch] | None = None,
    ) -> None:
        """``row`` holds the values of ``fields``, the key among them, in the store's form. Of
        fields with ``merges`` it has what these make of nothing."""
        self._merges = merges or {}
        self.fields = tuple(fields)
        self._dataset, self._row = dataset, tuple(row)

    def only(self, paths: Sequence[str]) -> SetValues:
        """The key, and those of the fields that are among ``paths``."""
        kept = [i for i, f in enumerate(self.fields) if f.in_key or f.path in paths]
        fields = [self.fields[i] for i in kept]
        return SetValues(self._dataset, fields, [self._row[i] for i in kept])

    def differing(
        self, view: View, record: Message, shown: Callable[[Field], bool]
    ) -> Sequence[str]:
        """The paths of those fields for which ``shown`` is true and that have other values in a
        record; none if a value of the record cannot be read."""
        fields = tuple(f for f in self.fields if not f.in_key and shown(f))
        now, problems = Incoming(view, fields).values(record)
        if problems:
            return ()
        own = dict(zip(self.fields, self._row, strict=True))
        for field, value in zip(fields, now, strict=True):
            if (patch := self._merges.get(field)) is not None:
                own[field] = _merge_value(field, patch, value)
        pairs = zip(fields, stored_row(fields, now), strict=True)
        return [f.path for f, value in pairs if not is_unchanged(f, value, own[f])]

    async def message(self, fields: Sequence[Field]) -> Message:
        """A record with the values of some of the fields."""
        values = dict(zip(self.fields, self._row, strict=True))
        return await record_of(Codec(self._dataset, fields), [values[f] for f in fields])


def _merge_value(field: Field, patch: MergePatch, stored: Any) -> Any:
    """What a patch makes of a value, in the store's form; None if that is no value of the field."""
    try:
        return stored_row((field,), [patch.merged(stored)])[0]
    except ValueRefused:
        return None


class WrittenRecord:
    """One record that a call writes, as the reply to the call shows it."""

    def __init__(self, reply: ReplyView, key: str, given: SetValues, *, dry: bool = False) -> None:
        """``dry``: the call only checks whether it could write."""
        self.given = given
        self._reply, self._key, self._dry = reply, key, dry

    async def introduce(self, call: Call) -> None:
        """Note in the call's audit entry what the reply will show. Raises DatabaseUnavailable."""
        readable = self._reply.readable
        if readable is not None:
            await call.will_disclose(readable)
            return
        paths = [f.path for f in self.given.fields]
        await call.will_disclose(self._reply.view, ",".join((*paths, *self._etag_path())))

    async def written(self, transaction: WriteTransaction) -> Message:
        """The record as the call has left it, as far as the caller may read it.

        A call that only checks does not reveal by etag or time whether it would change values,
        unless the caller may read all of them.
        """
        record = await self._reply.read(transaction, self._key)
        if record is None:
            etag = await self._reply.etag(transaction, self._key)
            record = await self._reply.own(self.given, etag)
        if self._dry and not self._reply.reads_in_clear(self._reply.view.dataset.fields):
            # These reveal whether a value differs from the stored one.
            for name in sorted(MOVING):
                record.ClearField(name)
        return record

    async def again(self, transaction: WriteTransaction, stored: Message) -> Message:
        """The reply of an earlier call, as far as the caller may see it now.

        ``stored`` is the earlier reply. The record is shown if it is still as the call left it; if
        others have written it since, only the values that the call itself has set. Raises
        RecordNotFound if the caller may no longer touch the record.
        """
        view, etag = self._reply.view, getattr(stored, "etag")  # noqa: B009  # of any dataset
        if await _read_record(transaction, view, self._key, key_paths(view.dataset)) is None:
            raise RecordNotFound(f"{view.dataset.singular} '{self._key}' does not exist")
        record: Any = await self._reply.read(transaction, self._key)
        if record is not None and etag and record.etag == etag:
            found: Message = record
            return found
        return await self._reply.own(self.given, etag)

    def encode(self, message: Message) -> bytes:
        """A reply as it is stored, with a mark if it has only what the call itself has set."""
        return (b"" if self._reply.shows_record else _OWN) + message.SerializeToString()

    def decode(self, stored: bytes) -> Message:
        """A stored reply."""
        self._reply.shows_record = not stored.startswith(_OWN)
        found = self._reply.view.dataset.message_class.FromString(stored.removeprefix(_OWN))
        if not self._reply.shows_record:
            self._reply.note_own(self.given, found)
        return found

    def _etag_path(self) -> Sequence[str]:
        return ("etag",) if self._reply.view.field("etag") is not None else ()


def record_form(dataset: Dataset, written: WrittenRecord) -> Form[Message]:
    """The form of a reply that is a record."""

    def brief(message: Any) -> Message:
        return dataset.message_class(etag=message.etag)

    return Form(written.encode, written.decode, written.again, brief)


async def known_record(
    transaction: WriteTransaction, view: View, key: str, fields: Sequence[Field]
) -> Message:
    """Some fields of a record that the call has written, for checking rules; never for a reply."""
    record = await _read_record(transaction, view, key, ",".join(f.path for f in fields))
    assert record is not None, "a written record is visible to its writer: the guard saw to it"
    return record


async def _read_record(
    transaction: WriteTransaction, view: View, key: str, fields: str = ""
) -> Message | None:
    query = view.prepared(Get, fields)
    row = await transaction.connection.fetchrow(
        query.statement.text, *query.statement.arguments(key=key)
    )
    return None if row is None else await record_of(query.codec, tuple(row))
