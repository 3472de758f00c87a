"""Updates: the new values of one record, written to it or, on request, to a new one."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from google.protobuf.message import Message

from penstockd.budget import offload_large
from penstockd.catalog import Dataset, Field
from penstockd.catalog.keys import REQUEST_KEY, message_key, split_key
from penstockd.catalog.leniency import STRICT, Leniency
from penstockd.catalog.rules import Rules
from penstockd.catalog.scalars import ValueRefused
from penstockd.errors import RecordExists, RecordNotFound, ValueInvalid, Violation
from penstockd.policy.view import View
from penstockd.query import select_fields
from penstockd.store.writer import Mode, WriteTransaction
from penstockd.writes.incoming import Incoming, check_fields, populated_paths, refuse_values
from penstockd.writes.merges import NO_MERGES, UNREAD, Merges, StoredMerge
from penstockd.writes.outgoing import ReplyView, SetValues, known_record

#: How often to try to update a record, then to create it: others may do so meanwhile.
_TRIES = 3


class Update:
    """One record's new values, and how they are written."""

    def __init__(
        self,
        reply: ReplyView,
        record: Message,
        fields: Sequence[Field],
        leniency: Leniency = STRICT,
        merges: Merges = NO_MERGES,
    ) -> None:
        """Raise ValueInvalid. ``merges`` has what merges with the stored values, by path."""
        view = reply.view
        self._view, self._record, self._leniency = view, record, leniency
        #: The etags of which an existing record must have one; any will do, if there are none.
        self.etags: Collection[str] = ()
        self._incoming = Incoming(view, fields, leniency)
        patches = {f: merges[f.path] for f in self._incoming.fields if f.path in merges}
        self._merge = StoredMerge(reply, patches)
        # The rules are for the values that result.
        self._row = self._incoming.part(record) if patches else self._incoming.row(record)
        #: The values that are set: more for a new record than for an existing one.
        self.given = SetValues(view.dataset, self._incoming.fields, self._row, patches)

    async def run(self, transaction: WriteTransaction) -> None:
        """Update the record. Raises RecordNotFound and EtagMismatch."""
        dataset, fields, guard = self._view.dataset, self._incoming.fields, self._view.guard
        rows, etags = [await self._whole_row(transaction)], self.etags
        await transaction.upsert(dataset, fields, rows, guard, mode=Mode.UPDATE, etags=etags)

    async def _whole_row(self, transaction: WriteTransaction) -> Sequence[Any]:
        """The row to write. What merges is read first; the record is locked from then on."""
        if not self._merge:
            return self._row
        dataset, key = self._view.dataset, message_key(self._view.dataset, self._record)
        if not await transaction.lock(self._view.guard, key):
            raise RecordNotFound(f"{dataset.singular} '{key}' does not exist")
        try:
            return await self._merge.row(transaction, key, self._record, self._incoming)
        except ValueInvalid:
            await self._compare_etags(transaction)
            raise

    async def _compare_etags(self, transaction: WriteTransaction) -> None:
        """Raise EtagMismatch if the record has none of the etags: what another has changed may be
        why the values do not fit, and the caller shall read it again."""
        if self.etags:
            pairs = zip(self._incoming.fields, self._row, strict=True)
            fields, key = zip(*[(f, v) for f, v in pairs if f.in_key], strict=True)
            dataset, guard = self._view.dataset, self._view.guard
            await transaction.upsert(
                dataset, fields, [[*key]], guard, mode=Mode.UPDATE, etags=self.etags
            )

    async def or_create(self, transaction: WriteTransaction) -> None:
        """Update the record, or create it if it does not exist. Raises RecordNotFound."""
        for _ in range(_TRIES):
            for attempt, otherwise in ((self.run, RecordNotFound), (self._create, RecordExists)):
                try:
                    await attempt(transaction)
                except otherwise:
                    continue
                return
            # Another writer has just created it, or the caller cannot see it.
        await self.run(transaction)

    async def _create(self, transaction: WriteTransaction) -> None:
        dataset, guard = self._view.dataset, self._view.guard
        check_fields(self._view, populated_paths(dataset, self._record))
        whole = Incoming(self._view, self._view.writable, self._leniency)
        rows = [await offload_large(self._record.ByteSize(), whole.new_row, self._record)]
        await transaction.upsert(dataset, whole.fields, rows, guard, mode=Mode.CREATE)
        whole_given = SetValues(dataset, whole.fields, rows[0])
        named = [f.path for f in self._incoming.fields]
        self.given = whole_given.only([*populated_paths(dataset, self._record), *named])


async def check_whole(
    transaction: WriteTransaction, reply: ReplyView, key: str, fields: Sequence[Field]
) -> None:
    """Check the resulting record by the rules over several fields. Raises ValueInvalid.

    Only fields that the caller writes in the clear are checked. If values are wrong only together
    with fields that the caller cannot read, the error leaves out the rule's text, which may quote
    those fields.
    """
    view, given = reply.view, [f.path for f in fields]
    clear = [f for f in view.fields() if view.is_whole(f)]
    rules = Rules.of(view.dataset)
    problems = rules.message(await known_record(transaction, view, key, clear), given)
    if not problems:
        return
    told = [f for f in clear if f.path in given or reply.reads_in_clear([f])]
    known = rules.message(await known_record(transaction, view, key, told), given)
    raise refuse_values(
        [Violation(*p) if p in known else Violation(p.path, UNREAD) for p in problems]
    )


def fields_to_set(view: View, record: Message, mask: Sequence[str]) -> tuple[Field, ...]:
    """The fields to set, the key among them, in the order of the schema."""
    dataset = view.dataset
    named = select_fields(mask, view) if mask else None
    paths = [f.path for f in named] if named is not None else populated_paths(dataset, record)
    check_fields(view, paths)
    wanted = set(paths) | {f.path for f in dataset.key_fields}
    return tuple(f for f in view.writable if f.path in wanted)


def complete_key(dataset: Dataset, record: Message, key: str) -> None:
    """Set the fields of the key in a record whose ``key``, as text, was sent beside it.

    Fields that are set already must have the same values; 0 and "" count as not set. Raises
    ValueInvalid.
    """
    if not key:
        return
    try:
        parts = split_key(dataset, key)
    except ValueRefused as exc:
        raise ValueInvalid.of(REQUEST_KEY, exc.reason) from None
    for field, part in zip(dataset.key_fields, parts, strict=True):
        given = getattr(record, field.path)
        if given and given != part:
            raise ValueInvalid.of(f"{dataset.singular}.{field.path}", "differs from the key")
        setattr(record, field.path, part)
