"""Makes the records of replies from rows, without holding up other calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from google.protobuf.message import Message

from penstockd.budget import let_others_run, offload_large
from penstockd.catalog import Field
from penstockd.catalog.record import Codec
from penstockd.catalog.record_json import RecordJson
from penstockd.policy.read import EtagCodec
from penstockd.policy.view import View


def record_json(view: View, fields: Sequence[Field]) -> RecordJson:
    """The writer of records as JSON, of which the View shows ``fields``."""
    return RecordJson(view.dataset, fields, nulls=view.nulls, hidden=view.hidden)


async def record_of(codec: Codec | EtagCodec, row: Sequence[Any]) -> Message:
    """The record of a row; a row with long lists is converted in a thread."""
    return await offload_large(codec.json_size(row), codec.message, row)


async def records_of(codec: Codec | EtagCodec, rows: Sequence[Sequence[Any]]) -> list[Message]:
    """The records of many rows."""
    records = []
    for row in rows:
        records.append(await record_of(codec, row))
        await let_others_run()
    return records
