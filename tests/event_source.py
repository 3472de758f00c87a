"""A client of server-sent events by the letter of WHATWG HTML, 9.2; its connections can be cut."""

from __future__ import annotations

import contextlib
import http.client
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from harness import PATIENCE, RunningHub


@dataclass(frozen=True)
class SentEvent:
    """An event as ``addEventListener`` receives it."""

    name: str
    data: Any
    last_id: str


@dataclass
class Parser:
    """Makes events of the bytes of a stream; ``comments`` are the comments so far."""

    last_id: str = ""
    comments: list[str] = field(default_factory=list)
    retry: int = 0
    _rest: bytes = b""
    _name: str = ""
    _data: list[str] = field(default_factory=list)
    _id: str | None = None

    def feed(self, data: bytes) -> Iterator[SentEvent]:
        """The events that are complete with these bytes."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            yield from self._take(line.decode())

    def _take(self, line: str) -> Iterator[SentEvent]:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            yield from self._dispatch()
        elif not name:
            self.comments.append(value)
        elif name == "event":
            self._name = value
        elif name == "data":
            self._data.append(value)
        elif name == "id":
            self._id = value
        elif name == "retry":
            self.retry = int(value)
        else:
            raise AssertionError(f"a field that no browser knows: {line}")

    def _dispatch(self) -> Iterator[SentEvent]:
        if self._id is not None:
            self.last_id, self._id = self._id, None
        name, data = self._name or "message", "\n".join(self._data)
        self._name, self._data = "", []
        if data:
            yield SentEvent(name, json.loads(data), self.last_id)


@dataclass
class EventSource:
    """Follows one URL of a hub; each ``connect`` is a connection, after which it remembers the last
    id."""

    hub: RunningHub
    path: str
    query: Mapping[str, object] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    last_id: str = ""

    @property
    def target(self) -> str:
        """The URL, which stays the same."""
        if not self.query:
            return self.path
        return f"{self.path}?{urlencode({k: str(v) for k, v in self.query.items()})}"

    @contextlib.contextmanager
    def request(self) -> Iterator[http.client.HTTPResponse]:
        """The reply to one connection."""
        sent = {"accept": "text/event-stream", "cache-control": "no-cache", **self.headers}
        if self.last_id:
            sent["last-event-id"] = self.last_id
        connection = http.client.HTTPConnection("127.0.0.1", self.hub.port, timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.request("GET", self.target, headers=sent)
            with contextlib.closing(connection.getresponse()) as reply:
                yield reply

    def connect(self, most: int | None = None) -> Iterator[SentEvent]:
        """The events of one connection, which is cut after ``most`` bytes, or by the hub."""
        parser, left = Parser(self.last_id), most
        with self.request() as reply:
            assert reply.status == 200, reply.read()
            while left is None or left > 0:
                data = reply.read1(65536 if left is None else min(left, 65536))
                if not data:
                    return
                left = None if left is None else left - len(data)
                for event in parser.feed(data):
                    self.last_id = parser.last_id
                    yield event
                self.last_id = parser.last_id
