"""Create: a new record."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.message import Message

from penstockd.budget import offload_large
from penstockd.calls import Call
from penstockd.catalog import Dataset
from penstockd.catalog.keys import message_key
from penstockd.formats.options import read_precision
from penstockd.policy.model import Action
from penstockd.store.writer import Mode, WriteTransaction
from penstockd.writes.idempotency import Request, write_once
from penstockd.writes.incoming import Incoming, check_fields, populated_paths
from penstockd.writes.outgoing import ReplyView, SetValues, WrittenRecord, record_form


async def create_record(
    call: Call,
    dataset: Dataset,
    record: Message,
    request: Request,
    named: Sequence[str] = (),
    *,
    time_precision: str = "",
) -> Message:
    """Write a new record and return the part of it that the caller may read.

    ``named`` are paths of fields that the caller has set, if only to null or a default. Raises
    PermissionDenied, FieldUnknown, ValueInvalid, RecordExists if the key is taken, even by a record
    that the caller may not see, and what ``write_once`` raises.
    """
    reply = ReplyView(call, dataset, Action.CREATE)
    view = reply.view
    key = message_key(dataset, record)
    call.entry.record_key = key
    call.asked(time_precision=time_precision)
    check_fields(view, populated_paths(dataset, record))
    incoming = Incoming(view, view.writable, read_precision(time_precision))
    row = await offload_large(record.ByteSize(), incoming.new_row, record)
    paths = [*populated_paths(dataset, record), *named]
    given = SetValues(dataset, incoming.fields, row).only(paths)
    written = WrittenRecord(reply, key, given, dry=request.validate_only)
    await written.introduce(call)

    async def work(transaction: WriteTransaction) -> tuple[Message, int]:
        await transaction.upsert(dataset, incoming.fields, [row], view.guard, mode=Mode.CREATE)
        return await written.written(transaction), 1

    return await write_once(call, request, record_form(dataset, written), work)
