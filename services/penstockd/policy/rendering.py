"""Makes the records of replies from rows, without holding up other calls."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import orjson
from google.protobuf.message import Message

from penstockd.budget import let_others_run, offload_large
from penstockd.catalog import Field
from penstockd.catalog.record import Codec
from penstockd.catalog.record_json import RecordJson
from penstockd.policy.read import EtagCodec, RowJson
from penstockd.policy.view import View
from penstockd.query import parse_fields

T = TypeVar("T")


def record_json(view: View, fields: Sequence[Field]) -> RecordJson:
    """The writer of records as JSON, of which the View shows ``fields``."""
    return RecordJson(view.dataset, fields, nulls=view.nulls, hidden=view.hidden)


class SelectedJson:
    """The writer of records of which ``fields`` are selected. Made by ``View.prepared``."""

    def __init__(self, view: View, fields: str) -> None:
        self.writer = record_json(view, parse_fields(fields, view))


@dataclass(frozen=True, slots=True)
class JsonRecord:
    """A record as JSON, and its etag: "" if that is not shown."""

    data: bytes
    etag: str


@dataclass(frozen=True, slots=True)
class JsonPage:
    """A page of records as JSON: the name of its list, the records, and the next page's token."""

    name: str
    records: Sequence[JsonRecord]
    token: str

    def encode(self) -> bytes:
        """The reply of a List… method."""
        records = b",".join([record.data for record in self.records])
        token = b',"nextPageToken":' + orjson.dumps(self.token) if self.token else b""
        return b"".join((b"{", orjson.dumps(self.name), b":[", records, b"]", token, b"}"))


class RowReading(Protocol):
    """A compiled read that makes messages or JSON of its rows: ``read.Get`` or ``read.Page``."""

    codec: Codec | EtagCodec
    json: RowJson


#: Makes what a reply shows of a row.
Render = Callable[[RowReading, Sequence[Any]], Awaitable[T]]


async def render_message(query: RowReading, row: Sequence[Any]) -> Message:
    """The message of a row."""
    return await record_of(query.codec, row)


async def render_json(query: RowReading, row: Sequence[Any]) -> JsonRecord:
    """The JSON of a row; a row with long lists is converted in a thread."""
    data, etag = await offload_large(query.codec.json_size(row), query.json.encode, row)
    return JsonRecord(data, etag)


async def render_all(
    query: RowReading, rows: Sequence[Sequence[Any]], render: Render[T]
) -> list[T]:
    """What a reply shows of many rows."""
    found = []
    for row in rows:
        found.append(await render(query, row))
        await let_others_run()
    return found


async def record_of(codec: Codec | EtagCodec, row: Sequence[Any]) -> Message:
    """The record of a row; a row with long lists is converted in a thread."""
    return await offload_large(codec.json_size(row), codec.message, row)
