"""Feeds over HTTP: a line of JSON for each message (NDJSON), or a server-sent event."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.message_factory import GetMessageClass

from penstockd.rpc.exchange import Exchange
from penstockd.rpc.frames import http_body
from penstockd.rpc.rest.media import EVENTS, NDJSON, prefers_events
from penstockd.rpc.rest.replies import ReplyWriter

#: Milliseconds after which a client reconnects (WHATWG server-sent events).
RETRY = 1000
#: The members whose cursor a stream can go on from, with nothing lost and little repeated.
_PLACES = ("checkpoint", "heartbeat")


class FeedLines:
    """The stream of one call."""

    def __init__(self, exchange: Exchange, make_writer: Callable[[], ReplyWriter]) -> None:
        """``make_writer`` is called once the stream has begun, when it is known what it shows."""
        method = exchange.hub.catalog.pool.FindMethodByName(
            f"{exchange.method.service}.{exchange.method.name}"
        )
        self._parse = GetMessageClass(method.output_type).FromString
        self._events = prefers_events(exchange.metadata.get("accept"))
        self._make_writer = make_writer
        self._writer: ReplyWriter | None = None

    def frame(self, data: bytes) -> bytes:
        """A message of the feed as a piece of the body."""
        message: Any = self._parse(data)
        kind, head = "", b""
        if self._writer is None:
            kind, self._writer = EVENTS if self._events else NDJSON, self._make_writer()
            head = b"retry: %d\n" % RETRY
        text = self._writer.encode(message)
        if not self._events:
            return http_body(text + b"\n", kind)
        place = _find_place(message)
        return http_body(head + place + b"data: " + text + b"\n\n", kind)


def _find_place(message: Any) -> bytes:
    """The id of an event: a browser sends the latest one when it reconnects."""
    for name in _PLACES:
        if name in message.DESCRIPTOR.fields_by_name and message.HasField(name):
            cursor: str = getattr(message, name).cursor
            return f"id: {cursor}\n".encode()
    return b""
