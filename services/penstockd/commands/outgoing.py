"""Rows as the records of replies, and what a writer gets back: its record as its View shows it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from google.protobuf.message import Message

from penstockd.budget import breathe, offload_large
from penstockd.catalog.record import Codec
from penstockd.errors import RecordNotFound
from penstockd.policy.read import Get
from penstockd.policy.view import View
from penstockd.store.writer import WriteTransaction


async def record_of(codec: Codec, row: Sequence[Any]) -> Message:
    """The record of a row; of one with long lists without holding up other calls."""
    return await offload_large(codec.json_size(row), codec.message, row)


async def records_of(codec: Codec, rows: Sequence[Sequence[Any]]) -> list[Message]:
    """The records of many rows, without holding up other calls."""
    records = []
    for row in rows:
        records.append(await record_of(codec, row))
        await breathe()
    return records


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
    return None if row is None else await record_of(query.codec, tuple(row))
