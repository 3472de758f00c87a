"""Rollups: the counts of each series in each minute, hour and day of UTC."""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Mapping

from penstockd.metering.counting import NOTHING, UsageCounts
from penstockd.store.database import Connection


class UsageLevel(enum.StrEnum):
    """The length of the buckets of a rollup, finest first."""

    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"

    @property
    def table(self) -> str:
        """The table of the level."""
        return f"hub.usage_{self.value}"

    def truncate(self, time: dt.datetime) -> dt.datetime:
        """The start of the bucket that holds a time in UTC."""
        start = time.replace(second=0, microsecond=0)
        if self is UsageLevel.MINUTE:
            return start
        start = start.replace(minute=0)
        return start if self is UsageLevel.HOUR else start.replace(hour=0)


#: A start of a bucket, and the id of a series.
Place = tuple[dt.datetime, int]

_ADD = """
INSERT INTO {table} AS u (bucket_time, series_id, calls, errors, records, bytes)
SELECT * FROM unnest($1::timestamptz[], $2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[],
    $6::bigint[])
ON CONFLICT (bucket_time, series_id) DO UPDATE SET calls = u.calls + excluded.calls,
    errors = u.errors + excluded.errors, records = u.records + excluded.records,
    bytes = u.bytes + excluded.bytes
"""


async def add_counts(connection: Connection, minutes: Mapping[Place, UsageCounts]) -> None:
    """Add the counts of minutes to the rollups of all levels."""
    if not minutes:
        return
    for level in UsageLevel:
        sums: dict[Place, UsageCounts] = {}
        for (time, series_id), counts in minutes.items():
            place = (level.truncate(time), series_id)
            sums[place] = sums.get(place, NOTHING).plus(counts)
        # In the order of the key: the rows of one bucket lie side by side.
        places = sorted(sums)
        columns = zip(*(sums[place] for place in places), strict=True)
        await connection.execute(
            _ADD.format(table=level.table),
            [time for time, _ in places],
            [series_id for _, series_id in places],
            *map(list, columns),
        )


async def read_levels(connection: Connection) -> Mapping[UsageLevel, dt.date]:
    """The first day of which each level is whole."""
    rows = await connection.fetch("SELECT level, oldest_day FROM hub.usage_level")
    return {UsageLevel(name): oldest or dt.date.min for name, oldest in rows}
