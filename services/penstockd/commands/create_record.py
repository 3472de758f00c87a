"""Create: a new record."""

from __future__ import annotations

from google.protobuf.message import Message

from penstockd.catalog import Dataset
from penstockd.commands.context import Call, Hub
from penstockd.commands.incoming import Incoming, check_fields, populated
from penstockd.commands.outgoing import written_record
from penstockd.policy.model import Action
from penstockd.store.writer import Mode


async def create_record(hub: Hub, call: Call, dataset: Dataset, record: Message) -> Message:
    """Write a new record and return it as the caller sees it.

    Raises PermissionDenied, FieldUnknown, ValueInvalid, and RecordExists if the key is taken, by
    a record that the caller may see or not.
    """
    view = call.view(dataset, Action.CREATE)
    call.entry.record_key = getattr(record, dataset.key.path)
    check_fields(view, populated(dataset, record))
    incoming = Incoming(dataset, view.writable)
    row = incoming.row(record)

    async def write() -> Message:
        async with hub.writer.transaction() as transaction:
            await transaction.upsert(dataset, incoming.fields, [row], view.guard, mode=Mode.CREATE)
            created = await written_record(transaction, view, call.entry.record_key or "")
            await call.audit_within(transaction, 1)
        return created

    return await hub.tasks.run(write())
