"""What a writer gets back: the record as its own View shows it."""

from __future__ import annotations

from google.protobuf.message import Message

from penstockd.policy.read import Get
from penstockd.policy.view import View
from penstockd.store.writer import WriteTransaction


async def written_record(transaction: WriteTransaction, view: View, key: str) -> Message:
    """The record with ``key`` as it stands in the transaction, through the View like any read."""
    query = view.prepared(Get, "")
    row = await transaction.connection.fetchrow(
        query.statement.text, *query.statement.arguments(key=key)
    )
    assert row is not None, "a written record is visible to its writer: the guard saw to it"
    return query.codec.message(tuple(row))
