"""Rows as the records of replies, made without holding up other calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from google.protobuf.message import Message

from penstockd.budget import breathe, offload_large


class RecordCodec(Protocol):
    """Makes messages of rows: ``Codec``, or ``EtagCodec`` where the etag is derived."""

    def json_size(self, row: Sequence[Any]) -> int:
        """Characters of JSON in a row."""
        ...

    def message(self, row: Sequence[Any]) -> Message:
        """The message of a row."""
        ...


async def record_of(codec: RecordCodec, row: Sequence[Any]) -> Message:
    """The record of a row; one with long lists is made by a thread."""
    return await offload_large(codec.json_size(row), codec.message, row)


async def records_of(codec: RecordCodec, rows: Sequence[Sequence[Any]]) -> list[Message]:
    """The records of many rows."""
    records = []
    for row in rows:
        records.append(await record_of(codec, row))
        await breathe()
    return records
