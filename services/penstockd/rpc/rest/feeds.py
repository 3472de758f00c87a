"""Feeds over HTTP: a line of JSON for each message (NDJSON), or a server-sent event (WHATWG HTML,
9.2).

Changes are events without a name, which ``EventSource.onmessage`` receives. The others have the
name of the member that they hold. An event has an id if a client can go on after it, in the middle
of a snapshot too; the browser repeats the last one when it reconnects. A heartbeat that has no news
is a comment.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from google.protobuf.message_factory import GetMessageClass

from penstockd.budget import offload_large
from penstockd.rpc.exchange import Exchange, Refusal
from penstockd.rpc.feeds import LAST_EVENT_ID, PROVES
from penstockd.rpc.frames import http_body
from penstockd.rpc.rest.media import EVENTS, NDJSON, prefers_events
from penstockd.rpc.rest.replies import ReplyWriter

#: Milliseconds after which a client reconnects (WHATWG server-sent events).
RETRY = 1000
#: The members that give an event its name, unless it has changes, and those among them whose cursor
#: says where to go on.
_NAMES = ("begin", "end", "heartbeat", "checkpoint", "transaction_end")
_PLACES = ("checkpoint", "lease", "heartbeat")
_HEARTBEAT = b": heartbeat\n\n"
#: The reasons for which a stream is refused after it has ended with STOP; the first if the ticket's
#: credential has ended.
_STOPPED = frozenset(
    {"ACCESS_CHANGED", "PERMISSION_DENIED", "SHAPE_NOT_FOUND", "SUBSCRIPTION_NOT_FOUND"}
)


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
        self._id = ""
        shown = exchange.wire.ticket
        self._proof = PROVES + exchange.hub.tickets.prove(shown.text) if shown else ""

    async def frame(self, data: bytes) -> bytes:
        """A message of the feed as a piece of the body."""
        message: Any = await offload_large(len(data), self._parse, data)
        kind, head = "", b""
        if self._writer is None:
            kind, self._writer = EVENTS if self._events else NDJSON, self._make_writer()
            head = b"retry: %d\n" % RETRY
        text = await offload_large(len(data), self._writer.encode, message)
        if not self._events:
            return http_body(text + b"\n", kind)
        return http_body(head + self._make_event(message, text), kind)

    def _make_event(self, message: Any, text: bytes) -> bytes:
        name, place = _name_event(message), _find_place(message)
        moved = place not in ("", self._id)
        if name == "heartbeat" and not moved:
            return _HEARTBEAT
        lines = [b"event: %s\n" % name.encode()] if name else []
        self._id = place or self._id
        if self._id:
            # An event keeps the id before it, but some clients forget that.
            lines.append(b"id: %s\n" % (self._id + self._proof).encode())
        return b"".join((*lines, b"data: ", text, b"\n\n"))


def ends_reconnection(exchange: Exchange, refusal: Refusal) -> bool:
    """Whether a refusal answers a client of server-sent events that reconnects to a stream that has
    ended for good. Then 204 makes it stop; others need to see the error."""
    return (
        refusal.reason in _STOPPED
        and not exchange.begun
        and exchange.method.streams
        and not exchange.method.sends_file
        and LAST_EVENT_ID in exchange.metadata
        and prefers_events(exchange.metadata.get("accept"))
    )


def _name_event(message: Any) -> str:
    """The name of an event; "" for one with changes."""
    if message.changes:
        return ""
    held = (n for n in _NAMES if n in message.DESCRIPTOR.fields_by_name and message.HasField(n))
    name = next(held, "")
    return message.DESCRIPTOR.fields_by_name[name].json_name if name else ""


def _find_place(message: Any) -> str:
    """Where a client can go on after a message; "" if that is unknown."""
    fields = message.DESCRIPTOR.fields_by_name
    if "resume_cursor" in fields and message.resume_cursor:
        return str(message.resume_cursor)
    for name in _PLACES:
        if name in fields and message.HasField(name):
            return str(getattr(message, name).cursor)
    return ""
