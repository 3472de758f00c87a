"""A consumer of a feed that uses only HTTP, JSON and SHA-256: no SDK, no protobuf.

It keeps a copy of a dataset from server-sent events, and computes the copy's digest by the comments
of ``penstock/hub/v1/digests.proto``.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlencode

from digesting import Form

Record = dict[str, Any]


class PlainConsumer:
    """A copy of a dataset; ``cursor`` is the last checkpoint that it has applied."""

    def __init__(self, port: int, token: str, dataset: str) -> None:
        self._port, self._token, self._dataset = port, token, dataset
        self.records: dict[str, Record] = {}
        self.cursor = ""
        self.repeated = 0
        self.connections = 0
        self._seen: set[tuple[int, str]] = set()  # since the last checkpoint
        self._form = Form(self._fields())

    def follow(self, enough: Callable[[], bool], cut: Callable[[], bool] = lambda: False) -> None:
        """Read until ``enough`` is true; whenever ``cut`` is true, drop the connection without
        notice.

        Both are called after each event.
        """
        while not enough():
            self.connections += 1
            with self._events() as events:
                for event in events:
                    self._take(event)
                    if enough() or cut():
                        break

    def digest(self) -> tuple[int, str]:
        """The number of records and the digest of the whole copy."""
        together = hashlib.sha256()
        for key in sorted(self.records, key=str.encode):
            together.update(hashlib.sha256(self.canonical(self.records[key])).digest())
        return len(self.records), together.hexdigest()

    def canonical(self, record: Record) -> bytes:
        """The canonical form of a record."""
        return self._form.text(record).encode()

    def _take(self, event: Record) -> None:
        for change in event.get("changes", ()):
            place = (int(change["sequence"]), change["key"])
            if place in self._seen:
                self.repeated += 1
                continue
            self._seen.add(place)
            if "after" in change:
                self.records[change["key"]] = change["after"]
            else:
                self.records.pop(change["key"], None)
        told: Record = event.get("checkpoint") or event.get("heartbeat") or {}
        cursor = told.get("cursor", "")
        if cursor and cursor != self.cursor:
            self.cursor = cursor
            self._seen.clear()
        assert "end" not in event, event["end"]

    @contextlib.contextmanager
    def _events(self) -> Iterator[Iterator[Record]]:
        # A snapshot that was cut off has no checkpoint yet, and starts again.
        begin = {"cursor": self.cursor} if self.cursor else {"snapshot": "true"}
        if not self.cursor:
            self.records.clear()
            self._seen.clear()
        query = urlencode({**begin, "batch_size": "50", "heartbeat_seconds": "1"})
        connection = self._connected()
        with contextlib.closing(connection):
            path = f"/v1/{self._dataset}:watch?{query}"
            connection.request("GET", path, headers=self._headers("text/event-stream"))
            reply = connection.getresponse()
            assert reply.status == 200, reply.read()
            yield self._data(reply)
            connection.close()

    @staticmethod
    def _data(reply: http.client.HTTPResponse) -> Iterator[Record]:
        while line := reply.readline():
            if line.startswith(b"data: "):
                yield json.loads(line[len(b"data: ") :])

    def _fields(self) -> list[Record]:
        connection = self._connected()
        with contextlib.closing(connection):
            connection.request("GET", "/v1/datasets", headers=self._headers("application/json"))
            datasets = json.loads(connection.getresponse().read())["datasets"]
        (found,) = (d for d in datasets if d["name"] == self._dataset)
        return list(found["fields"])

    def _connected(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self._port, timeout=120)

    def _headers(self, accept: str) -> dict[str, str]:
        return {"authorization": f"Bearer {self._token}", "accept": accept}
