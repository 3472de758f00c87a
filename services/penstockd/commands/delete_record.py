"""Delete: one record."""

from __future__ import annotations

from penstockd.calls import Call
from penstockd.catalog import Dataset
from penstockd.errors import EtagMismatch, RecordNotFound
from penstockd.policy.model import Action
from penstockd.store.writer import WriteTransaction
from penstockd.writes.etags import ExpectedEtag, read_etags
from penstockd.writes.idempotency import Form, Request, write_once
from penstockd.writes.outgoing import ReplyView

_NOTHING: Form[None] = Form(lambda _: b"", lambda _: None)


async def delete_record(
    call: Call,
    dataset: Dataset,
    key: str,
    etag: str,
    request: Request,
    *,
    allow_missing: bool = False,
) -> None:
    """Delete the record with ``key``.

    Raises PermissionDenied, EtagMismatch, RecordNotFound, and what ``write_once`` raises. With
    ``allow_missing`` it raises no RecordNotFound: a record that the caller may not see stays, and
    the answer is the same as for a missing record, whatever the etag.
    """
    reply = ReplyView(call, dataset, Action.DELETE)
    call.entry.record_key = key
    call.asked(etag=etag, allow_missing=allow_missing)
    shown = ExpectedEtag(call, reply, read_etags(etag))

    async def work(transaction: WriteTransaction) -> tuple[None, int]:
        try:
            left = await shown.left(transaction, key)
            await transaction.delete(dataset, key, reply.view.guard, etags=left)
        except EtagMismatch as exc:
            raise await reply.mismatch(transaction, key, exc) from None
        except RecordNotFound:
            if not allow_missing:
                raise
            return None, 0
        return None, 1

    await write_once(call, request, _NOTHING, work)
