"""Asks the administration of the sidecar, over its Unix socket."""

from __future__ import annotations

import http.client
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import orjson

#: Seconds that one process may take to answer, and the most bytes that it may send.
PATIENCE = 2.0
MOST_BYTES = 32 << 20
_PUBLIC = "http.public.downstream_rq_"
_REJECTED = ("cx_overflow", "_cx_overload_reject", "_rq_overload_close", "limited_connections")
#: Of listeners only those that have an address for a name: the administration is no door.
_STATS = (
    r"^(http\.public\.downstream_rq_(5xx|completed|time|overload_close)"
    r"|connection_limit\.public\.limited_connections"
    r"|listener\.[0-9\[].*\.downstream_(global_cx_overflow|cx_overflow|cx_overload_reject))$"
)


@dataclass(frozen=True, slots=True)
class DoorReading:
    """What a sidecar counted: answers to clients, those that are 5xx, connections and requests that
    it rejected for lack of room, and how many requests took at most each of some milliseconds."""

    requests: int
    failures: int
    rejected: int
    times: Mapping[float, int]

    def since(self, last: DoorReading) -> DoorReading:
        """What was counted after an earlier reading; all of it if the sidecar began again."""
        if self.requests < last.requests:
            return self
        return DoorReading(
            self.requests - last.requests,
            max(0, self.failures - last.failures),
            max(0, self.rejected - last.rejected),
            {at: max(0, count - last.times.get(at, 0)) for at, count in self.times.items()},
        )


def read_door(path: Path) -> DoorReading:
    """What the sidecar has counted since it began. Raises OSError, ValueError."""
    query = urlencode({"format": "json", "histogram_buckets": "cumulative", "filter": _STATS})
    try:
        return parse_door(orjson.loads(fetch_text(path, f"/stats?{query}")))
    except (http.client.HTTPException, AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"the sidecar gave no readings: {error!r}") from error


def parse_door(document: Mapping[str, Any]) -> DoorReading:
    """The reading in a document of the sidecar."""
    counts = {s["name"]: s["value"] for s in document["stats"] if "name" in s}
    times = {
        float(bucket["upper_bound"]): int(bucket["cumulative"])
        for stat in document["stats"]
        for histogram in stat.get("histograms", ())
        for bucket in histogram.get("buckets", ())
    }
    rejected = sum(value for name, value in counts.items() if name.endswith(_REJECTED))
    return DoorReading(
        counts[f"{_PUBLIC}completed"], counts.get(f"{_PUBLIC}5xx", 0), rejected, times
    )


def fetch_text(path: Path, target: str) -> str:
    """The body of a reply over a Unix socket. Raises OSError, HTTPException, ValueError."""
    connection = http.client.HTTPConnection("localhost", timeout=PATIENCE)
    connection.sock = socket.socket(socket.AF_UNIX)
    try:
        connection.sock.settimeout(PATIENCE)
        connection.sock.connect(str(path))
        connection.request("GET", target)
        reply = connection.getresponse()
        if reply.status != http.client.OK:
            raise ValueError(f"status {reply.status}")
        return reply.read(MOST_BYTES).decode()
    finally:
        connection.close()
