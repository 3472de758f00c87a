"""Digests of the rollups of a day: what a signed checkpoint states about its usage."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Mapping
from typing import NamedTuple

from penstockd.metering.rollups import UsageLevel
from penstockd.metering.series import Series
from penstockd.store.database import Connection

#: Rows that are read at a time.
_GROUP = 5000
_TRAITS = ", ".join(f"s.{name}" for name in Series._fields)
#: Each row as PostgreSQL's binary form of a composite value: no two rows share one.
_ROWS = f"""
SELECT record_send(ROW(u.bucket_time, {_TRAITS}, u.calls, u.errors, u.records, u.bytes))
FROM {{table}} AS u JOIN hub.usage_series AS s USING (series_id)
WHERE u.bucket_time >= $1 AND u.bucket_time < $2 ORDER BY u.bucket_time, {_TRAITS}
"""
_NEWEST = """
SELECT revision, entries, minutes, hours, days, digest, checkpoint FROM hub.usage_digest
WHERE day = $1 ORDER BY revision DESC LIMIT 1
"""


class DayDigest(NamedTuple):
    """A stored digest of a day: of how many entries, of each level, and of these digests together.

    ``checkpoint`` is the number of the one that signs it; None until it is signed.
    """

    revision: int
    entries: int
    minutes: bytes
    hours: bytes
    days: bytes
    digest: bytes
    checkpoint: int | None

    @property
    def levels(self) -> Mapping[UsageLevel, bytes]:
        """The digest of each level."""
        return {
            UsageLevel.MINUTE: self.minutes,
            UsageLevel.HOUR: self.hours,
            UsageLevel.DAY: self.days,
        }


def day_span(day: dt.date) -> tuple[dt.datetime, dt.datetime]:
    """The start and the end of a day of UTC."""
    start = dt.datetime.combine(day, dt.time(), dt.UTC)
    return start, start + dt.timedelta(days=1)


async def digest_level(connection: Connection, day: dt.date, level: UsageLevel) -> bytes:
    """The digest of the rollups of a level on a day. The connection must be in a transaction."""
    digest = hashlib.sha256()
    cursor = await connection.cursor(_ROWS.format(table=level.table), *day_span(day))
    while rows := await cursor.fetch(_GROUP):
        for (content,) in rows:
            digest.update(len(content).to_bytes(4, "big") + content)
    return digest.digest()


def join_digests(day: dt.date, entries: int, levels: Mapping[UsageLevel, bytes]) -> bytes:
    """The digest of a day, from how many entries were counted and the digests of all levels."""
    lines = [
        "penstock usage 1",
        day.isoformat(),
        str(entries),
        *(levels[x].hex() for x in UsageLevel),
    ]
    return hashlib.sha256("\n".join(lines).encode()).digest()


async def read_digest(connection: Connection, day: dt.date) -> DayDigest | None:
    """The newest stored digest of a day."""
    row = await connection.fetchrow(_NEWEST, day)
    return DayDigest(*row) if row is not None else None


async def insert_digest(
    connection: Connection, day: dt.date, entries: int, levels: Mapping[UsageLevel, bytes]
) -> None:
    """Store a new digest of a day; the sealer signs it."""
    known = await read_digest(connection, day)
    await connection.execute(
        "INSERT INTO hub.usage_digest (day, revision, entries, minutes, hours, days, digest)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7)",
        day,
        known.revision + 1 if known is not None else 1,
        entries,
        *(levels[level] for level in UsageLevel),
        join_digests(day, entries, levels),
    )
