"""BatchUpsert: many records at once, all of them or, on request, only the valid ones."""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.message import Message

from penstockd.calls import Call
from penstockd.catalog import Dataset
from penstockd.errors import RequestTooLarge
from penstockd.formats.options import read_precision
from penstockd.policy.model import Action
from penstockd.store.writer import WriteTransaction
from penstockd.writes.batches import WriteBatch
from penstockd.writes.idempotency import Request, write_once
from penstockd.writes.incoming import check_settable
from penstockd.writes.outgoing import ReplyView
from penstockd.writes.report import REPORT, Report

MAX_RECORDS = 10_000


async def batch_upsert(
    call: Call,
    dataset: Dataset,
    records: Sequence[Message],
    request: Request,
    *,
    partial: bool = False,
    time_precision: str = "",
) -> Report:
    """Create the records whose keys are new and update the others where they differ.

    A record replaces all fields that the caller may write; others keep their values. Raises
    PermissionDenied (the caller must be allowed to create and to update), RequestTooLarge,
    FieldUnknown, ValueInvalid, RecordNotFound (out of the caller's sight) and what ``write_once``
    raises. With ``partial``, FieldUnknown, ValueInvalid and RecordNotFound are reported for each
    row instead, and the other rows are written; of two records with one key, the first is written.
    """
    reply = ReplyView(call, dataset, Action.CREATE, Action.UPDATE)
    if len(records) > MAX_RECORDS:
        raise RequestTooLarge(f"a batch holds at most {MAX_RECORDS} records")
    call.asked(partial=partial, time_precision=time_precision)
    leniency = read_precision(time_precision)
    check_settable(reply.view, records)
    batch = WriteBatch(reply.view, records, partial=partial, leniency=leniency)
    await batch.prepare(call.books.writer)

    async def work(transaction: WriteTransaction) -> tuple[Report, int]:
        report = await batch.write(transaction)
        return report, report.counts.total

    return reply.report(await write_once(call, request, REPORT, work))
