"""BatchUpsert: many records at once, all or none."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.message import Message

from penstockd.catalog import Dataset
from penstockd.commands.context import Call, Hub
from penstockd.commands.incoming import Incoming, check_fields, populated
from penstockd.errors import RequestTooLarge, ValueInvalid, Violation
from penstockd.policy.model import Action
from penstockd.store.writer import Counts, DuplicateKey

MAX_RECORDS = 10_000


async def batch_upsert(
    hub: Hub, call: Call, dataset: Dataset, records: Sequence[Message]
) -> Counts:
    """Create the records whose keys are new and update the others where they differ.

    A record replaces all fields that the caller may write; others keep their values. Raises
    PermissionDenied (the caller must be allowed to create and to update), RequestTooLarge,
    FieldUnknown, ValueInvalid.
    """
    view = call.view(dataset, Action.CREATE)
    call.view(dataset, Action.UPDATE)
    if len(records) > MAX_RECORDS:
        raise RequestTooLarge(f"a batch holds at most {MAX_RECORDS} records")
    check_fields(view, sorted({p for r in records for p in populated(dataset, r)}))
    incoming = Incoming(dataset, view.writable)
    rows = [incoming.row(record, place=f"{dataset.name}[{i}].") for i, record in enumerate(records)]

    async def write() -> Counts:
        async with hub.writer.transaction() as transaction:
            counts = await transaction.upsert(dataset, incoming.fields, rows, view.guard)
            await call.audit_within(transaction, counts.total)
        return counts

    try:
        return await hub.tasks.run(write())
    except DuplicateKey as exc:
        violation = Violation(f"{dataset.name}[{exc.row}].{dataset.key.path}", "occurs twice")
        raise ValueInvalid(str(exc), violations=[violation]) from exc
