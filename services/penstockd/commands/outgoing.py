"""What a writer gets back: the record as its own View shows it."""

from __future__ import annotations

from google.protobuf.message import Message

from penstockd.errors import RecordNotFound
from penstockd.policy.read import Get
from penstockd.policy.view import View
from penstockd.store.writer import WriteTransaction


async def written_record(
    transaction: WriteTransaction, view: View, key: str, *, fields: str = ""
) -> Message:
    """The record with ``key`` as it stands in the transaction, through the View like any read."""
    record = await _record(transaction, view, key, fields)
    assert record is not None, "a written record is visible to its writer: the guard saw to it"
    return record


async def current_record(transaction: WriteTransaction, view: View, key: str) -> Message:
    """The same of a record that was written some time ago. Raises RecordNotFound."""
    record = await _record(transaction, view, key)
    if record is None:
        raise RecordNotFound(f"{view.dataset.singular} '{key}' does not exist")
    return record


async def _record(
    transaction: WriteTransaction, view: View, key: str, fields: str = ""
) -> Message | None:
    query = view.prepared(Get, fields)
    row = await transaction.connection.fetchrow(
        query.statement.text, *query.statement.arguments(key=key)
    )
    return None if row is None else query.codec.message(tuple(row))
