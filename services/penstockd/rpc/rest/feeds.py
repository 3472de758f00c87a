"""Feeds over HTTP: a line of JSON for each message (NDJSON), or a server-sent event."""

from __future__ import annotations

from typing import Any

from google.protobuf.message_factory import GetMessageClass

from penstockd.rpc.exchange import Exchange
from penstockd.rpc.frames import http_body
from penstockd.rpc.rest.media import EVENTS, NDJSON


class FeedLines:
    """The stream of one call."""

    def __init__(self, exchange: Exchange, make_writer: Any) -> None:
        method = exchange.hub.catalog.pool.FindMethodByName(
            f"{exchange.method.service}.{exchange.method.name}"
        )
        self._parse = GetMessageClass(method.output_type).FromString
        self._events = EVENTS in exchange.metadata.get("accept", "")
        self._make_writer, self._begun = make_writer, False

    def frame(self, data: bytes) -> bytes:
        """A message of the feed as a piece of the body."""
        text = self._make_writer().encode(self._parse(data))
        kind = ""
        if not self._begun:
            kind, self._begun = EVENTS if self._events else NDJSON, True
        return http_body(b"data: " + text + b"\n\n" if self._events else text + b"\n", kind)
