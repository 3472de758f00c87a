"""Feeds on the wire: the messages of streams and polls of changes, of one dataset or of several.

The responses of ``penstock.hub.v1.Changes`` and those of each dataset's own service have the same
fields with the same numbers, so that one encoding serves all.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from penstock.hub.v1 import changes_pb2
from penstockd.calls import Permit
from penstockd.errors import CursorInvalid
from penstockd.feed.poll import ChangePage
from penstockd.feed.reply import Begin, End
from penstockd.feed.source import Frame
from penstockd.feed.stream import Watch
from penstockd.policy.lens import Lens
from penstockd.policy.rendering import SelectedJson
from penstockd.rpc import receipts
from penstockd.rpc.exchange import Exchange
from penstockd.shapes.lens import ShapedLens
from penstockd.store.cursor import Cursor

#: The header in which a reconnecting client sends its last cursor (WHATWG server-sent events).
LAST_EVENT_ID = "last-event-id"
#: What separates cursor and proof in an id.
PROVES = "~"
_WHOLE_ID = (
    "the cursor has the id of an event, whose part after '~' is a secret for the header"
    " Last-Event-ID: give only what stands before '~'"
)
#: Headers of a stream. Without the first, nginx holds changes back until its buffer is full; by the
#: second, other proxies and the browser keep nothing of it.
STREAM_HEADERS = {"x-accel-buffering": "no", "cache-control": "no-cache, no-store"}


def watch_of(request: Any, exchange: Exchange) -> Watch:
    """The start and the options of a stream.

    Raises CursorInvalid for an id in place of a cursor: its proof is a secret, which counts in the
    header alone, and does not belong into a URL.
    """
    # A client that reconnects repeats the URL with which it began.
    if last := exchange.metadata.get(LAST_EVENT_ID, ""):
        return Watch(split_id(last)[0], False, request.heartbeat_seconds)
    if PROVES in request.cursor:
        raise CursorInvalid(_WHOLE_ID)
    return Watch(request.cursor, request.snapshot, request.heartbeat_seconds)


def split_id(event_id: str) -> tuple[str, str]:
    """The cursor in the id of a server-sent event, and the proof that follows it; "" unless the
    stream began with a ticket."""
    cursor, _, proof = event_id.partition(PROVES)
    return cursor, proof


def wait_of(request: Any) -> float:
    """The seconds that a poll may wait."""
    return float(request.wait.seconds + request.wait.nanos / 1e9)


def poll_reply(kind: Any, page: ChangePage) -> Any:
    """The response of a poll; ``kind`` is its class."""
    reply = kind.FromString(page.changes)
    reply.next_cursor, reply.view, reply.more = page.next_cursor, page.view, page.more
    reply.shapes.extend(page.shapes)
    return reply


def show_lenses(exchange: Exchange, lenses: Mapping[str, Lens]) -> None:
    """Note that a reply shows records, or columns of shapes, through lenses."""
    for lens in lenses.values():
        if isinstance(lens, ShapedLens):
            exchange.columns[lens.dataset.name] = [c.field.path for c in lens.shaped.columns]
        else:
            exchange.show(lens.dataset, lens.view.prepared(SelectedJson, lens.rule_fields).writer)


class StreamReply:
    """A stream of responses. Changes arrive encoded; the other messages are few, and are encoded
    here."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange, self._places = exchange, exchange.hub.places

    async def begin(self, begin: Begin) -> int:
        """Send the first record, and headers with the receipt's id."""
        show_lenses(self._exchange, begin.lenses)
        await self._exchange.send_headers({receipts.HEADER: begin.receipt_id, **STREAM_HEADERS})
        said = changes_pb2.StreamBegin(
            cursor=self._places.seal(begin.cursor),
            view=begin.view,
            policy_revision=begin.policy_revision,
            receipt_id=begin.receipt_id,
            shapes=begin.shapes,
        )
        return await self._say(begin.place, begin=said)

    async def changes(
        self,
        frame: Frame,
        ends: int | None,
        checkpoint: tuple[Cursor, datetime | None] | None,
        permit: Permit | None,
    ) -> int:
        """Send changes, then the end of their transaction and the place after them, if any."""
        data = frame.data
        if checkpoint is not None or ends is not None or frame.place is not None:
            rest = self._message(frame.place)
            if ends is not None:
                rest.transaction_end.transaction_id = frame.transaction
                rest.transaction_end.change_count = ends
            if checkpoint is not None:
                cursor, time = checkpoint
                rest.checkpoint.cursor = self._places.seal(cursor)
                if time is not None:
                    rest.checkpoint.commit_time.FromDatetime(time)
            data += rest.SerializeToString()
        await self._exchange.send(data, permit)
        return len(data)

    async def heartbeat(self, cursor: Cursor, place: Cursor | None) -> int:
        """Send a sign of life."""
        said = changes_pb2.Heartbeat(cursor=self._places.seal(cursor))
        said.time.FromDatetime(datetime.now(UTC))
        return await self._say(place, heartbeat=said)

    async def end(self, end: End) -> int:
        """Send the last record."""
        said = changes_pb2.StreamEnd(
            reason=end.reason,
            message=end.message,
            cursor=self._places.seal(end.cursor),
            reconcile=int(end.reconcile),  # type: ignore[arg-type]  # an enum's number
            receipt=receipts.make_message(end.receipt, self._places),
        )
        return await self._say(None, end=said)

    async def _say(self, place: Cursor | None, **said: Any) -> int:
        data = self._message(place, **said).SerializeToString()
        await self._exchange.send(data)
        return len(data)

    def _message(self, place: Cursor | None, **said: Any) -> changes_pb2.WatchChangesResponse:
        resume = "" if place is None else self._places.seal(place)
        return changes_pb2.WatchChangesResponse(resume_cursor=resume, **said)
