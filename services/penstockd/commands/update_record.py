"""Update: some fields of a record."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.message import Message

from penstockd.budget import offload_large
from penstockd.calls import Call
from penstockd.catalog import Dataset
from penstockd.catalog.keys import message_key
from penstockd.catalog.rules import Rules
from penstockd.errors import EtagMismatch
from penstockd.formats.options import read_precision
from penstockd.policy.model import Action
from penstockd.store.writer import WriteTransaction
from penstockd.writes.etags import ExpectedEtag, join_etags, read_etags
from penstockd.writes.idempotency import Request, write_once
from penstockd.writes.outgoing import ReplyView, WrittenRecord, record_form
from penstockd.writes.updates import Update, check_whole, complete_key, fields_to_set


async def update_record(
    call: Call,
    dataset: Dataset,
    record: Message,
    mask: Sequence[str],
    etag: str,
    request: Request,
    *,
    key: str = "",
    allow_missing: bool = False,
    time_precision: str = "",
) -> Message:
    """Set the fields that ``mask`` names, or without a mask all populated fields (AIP-134).

    A ``key``, as text, names the record if its own fields do not. An ``etag`` beside the record,
    where commas may separate several, or in it (AIP-154) must match the stored record's. With
    ``allow_missing`` the caller must also be allowed to create: a missing record is created from
    all populated fields, whatever the mask says, unless there is an etag. Raises PermissionDenied,
    FieldUnknown, ValueInvalid, RecordNotFound (also for a record out of sight), EtagMismatch, and
    what ``write_once`` raises.
    """
    reply = ReplyView(call, dataset, Action.UPDATE, *[Action.CREATE] * allow_missing)
    complete_key(dataset, record, key)
    call.entry.record_key = key = message_key(dataset, record)
    expected = join_etags(etag, getattr(record, "etag"))  # noqa: B009  # a message of any dataset
    call.asked(update_mask=",".join(mask), etag=expected)
    call.asked(allow_missing=allow_missing, time_precision=time_precision)
    fields = fields_to_set(reply.view, record, mask)
    making = (reply, record, fields, read_precision(time_precision), request.merges)
    update = await offload_large(record.ByteSize(), Update, *making)
    written = WrittenRecord(reply, key, update.given, dry=request.validate_only)
    await written.introduce(call)
    shown = ExpectedEtag(call, reply, read_etags(expected))

    async def work(transaction: WriteTransaction) -> tuple[Message, int]:
        try:
            update.etags = await shown.left(transaction, key)
            await (update.or_create if allow_missing and not expected else update.run)(transaction)
        except EtagMismatch as exc:
            raise await reply.mismatch(transaction, key, exc, update.given) from None
        if Rules.of(dataset).over_several:
            await check_whole(transaction, reply, key, fields)
        written.given = update.given
        return await written.written(transaction), 1

    return await write_once(call, request, record_form(dataset, written), work)
