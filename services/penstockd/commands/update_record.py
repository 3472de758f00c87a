"""Update: some fields of a record."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.message import Message

from penstockd.catalog import Dataset, Field
from penstockd.commands.context import Call, Hub
from penstockd.commands.incoming import Incoming, check_fields, populated
from penstockd.commands.outgoing import written_record
from penstockd.errors import ValueInvalid, Violation
from penstockd.policy.model import Action
from penstockd.policy.view import View
from penstockd.query import parse_fields
from penstockd.store.writer import Mode


async def update_record(
    hub: Hub, call: Call, dataset: Dataset, record: Message, mask: Sequence[str], etag: str
) -> Message:
    """Set the fields that ``mask`` names, or without one those that are set (AIP-134).

    An ``etag``, given beside the record or in it (AIP-154), must be the record's. Raises
    PermissionDenied, FieldUnknown, ValueInvalid, RecordNotFound and EtagMismatch.
    """
    view = call.view(dataset, Action.UPDATE)
    key = getattr(record, dataset.key.path)
    call.entry.record_key = key
    call.asked(update_mask=",".join(mask))
    expected = _expected_etag(etag, getattr(record, "etag"))  # noqa: B009  # a message of any dataset
    fields = _fields(view, record, mask)
    incoming = Incoming(dataset, fields)
    row = incoming.row(record)

    async def write() -> Message:
        async with hub.writer.transaction() as transaction:
            await transaction.upsert(
                dataset, incoming.fields, [row], view.guard, mode=Mode.UPDATE, etag=expected
            )
            updated = await written_record(transaction, view, key)
            await call.audit_within(transaction, 1)
        return updated

    return await hub.tasks.run(write())


def _fields(view: View, record: Message, mask: Sequence[str]) -> tuple[Field, ...]:
    """The fields to set, the key among them, in the order of the schema."""
    dataset = view.dataset
    named = parse_fields(",".join(mask), view) if mask else None
    paths = [f.path for f in named] if named is not None else populated(dataset, record)
    check_fields(view, paths)
    wanted = set(paths) | {dataset.key.path}
    return tuple(f for f in view.writable if f.path in wanted)


def _expected_etag(beside: str, inside: str) -> str:
    if beside and inside and beside != inside:
        violation = Violation("etag", "differs from the etag in the record")
        raise ValueInvalid("two different etags were given", violations=[violation])
    return beside or inside
