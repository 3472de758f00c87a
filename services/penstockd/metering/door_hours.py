"""What the sidecar of a node answered in each hour: noted by the keeper of the node.

The sidecar counts since it began. Differences between two readings are added to the hour of the
later one; what it answered before the first reading of a keeper is in no hour.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import structlog

from penstockd.observe.logs import RareLine
from penstockd.observe.sidecar import DoorReading, read_door
from penstockd.store.database import Connection, Database

#: Seconds between readings.
INTERVAL = 10.0
#: How long hours are kept: a scorecard compares two years at most.
KEPT = dt.timedelta(days=800)

_ADD = """
INSERT INTO hub.door_hour AS d
SELECT date_trunc('hour', now(), 'UTC'), $1, $2::float8[], $3, $4, $5, $6::bigint[], now()
ON CONFLICT (bucket_time, node_id, bounds) DO UPDATE SET requests = d.requests + excluded.requests,
    failures = d.failures + excluded.failures, rejected = d.rejected + excluded.rejected,
    counts = ARRAY(SELECT mine + more FROM unnest(d.counts, excluded.counts) AS c (mine, more)),
    fresh_time = excluded.fresh_time
"""
_DROP = "DELETE FROM hub.door_hour WHERE bucket_time < now() - $1::interval"
_SUM = """
SELECT coalesce(sum(requests), 0)::bigint, coalesce(sum(failures), 0)::bigint,
    coalesce(sum(rejected), 0)::bigint, max(fresh_time)
FROM hub.door_hour WHERE bucket_time >= $1 AND bucket_time < $2
"""
_TIMES = """
SELECT t.bound, sum(t.count)::bigint FROM hub.door_hour
CROSS JOIN LATERAL unnest(bounds, counts) AS t (bound, count)
WHERE bucket_time >= $1 AND bucket_time < $2 GROUP BY 1 ORDER BY 1
"""

_unread = RareLine(structlog.get_logger(__name__), "sidecar_not_read", seconds=600.0)


class ReadDoor(Protocol):
    """Reads what a sidecar has counted since it began. Raises OSError, ValueError."""

    def __call__(self, socket: Path, /) -> DoorReading:
        """The reading."""


class DoorHours:
    """Notes what the sidecar behind a socket of administration answers."""

    def __init__(
        self, database: Database, socket: Path, node_id: str, read: ReadDoor = read_door
    ) -> None:
        self._database, self._socket, self._node_id = database, socket, node_id
        self._read = read
        self._last: DoorReading | None = None

    async def run(self) -> None:
        """Read every INTERVAL until cancelled. Raises DatabaseUnavailable."""
        while True:
            await self.note()
            await asyncio.sleep(INTERVAL)

    async def note(self) -> None:
        """Read once, and add what was answered since the last reading."""
        try:
            now = await asyncio.to_thread(self._read, self._socket)
        except (OSError, ValueError) as error:  # there is none, or it begins or ends
            _unread.warn(error=repr(error))
            return
        if self._last is None:
            self._last = now
            return
        grown = now.since(self._last)
        async with self._database.transaction() as connection:
            await connection.execute(
                _ADD, self._node_id, list(grown.times), grown.requests, grown.failures,
                grown.rejected, list(grown.times.values()),
            )  # fmt: skip
            await connection.execute(_DROP, KEPT)
        # Only now: what the sidecar answered while the database was away counts, too.
        self._last = now


@dataclass(frozen=True, slots=True)
class DoorCounts:
    """Requests, answers 5xx, connections that were rejected, and how many requests took at most
    each number of milliseconds. ``fresh``: the last reading; None without one."""

    requests: int
    failures: int
    rejected: int
    fresh: dt.datetime | None
    times: Mapping[float, int]

    @property
    def timed(self) -> int:
        """The requests whose times are known."""
        return max(self.times.values(), default=0)

    def quantile(self, share: float) -> float | None:
        """The milliseconds within which a share of the requests was answered, interpolated between
        bounds; None without requests."""
        wanted, low, below = share * self.timed, 0.0, 0
        for bound, count in self.times.items():
            if count >= wanted and count > below:
                return low + (bound - low) * (wanted - below) / (count - below)
            low, below = bound, count
        return None


async def sum_door(connection: Connection, start: dt.datetime, end: dt.datetime) -> DoorCounts:
    """What all sidecars answered in the whole hours from ``start`` to before ``end``."""
    row = await connection.fetchrow(_SUM, start, end)
    assert row is not None, "aggregates always have a row"
    times = {bound: count for bound, count in await connection.fetch(_TIMES, start, end)}
    return DoorCounts(row[0], row[1], row[2], row[3], times)
