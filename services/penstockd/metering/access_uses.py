"""Uses of access: who used what with which credential, and when last. Folded with usage.

Rollups hold no use that counts nothing: PART entries name the records of streams about several
datasets, and their rules alone tell which classes of fields the streams showed.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from penstockd.metering.counting import FAULTLESS, GIVEN
from penstockd.metering.series import Series
from penstockd.store.database import Connection

#: When entries ``e`` of a group were written: the first and the last one, and the last one by which
#: records left.
TIMES = f"""
min(e.entry_time), max(e.entry_time), max(e.entry_time) FILTER (
    WHERE e.phase = 'PART' OR ({GIVEN}) AND e.row_count > 0)
"""
_PUT = """
INSERT INTO hub.access_use AS a
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[],
    $7::timestamptz[], $8::timestamptz[], $9::timestamptz[])
ON CONFLICT (consumer_id, credential_id, method, surface, dataset, classes) DO UPDATE
SET first_time = least(a.first_time, excluded.first_time),
    last_time = greatest(a.last_time, excluded.last_time),
    received_time = greatest(a.received_time, excluded.received_time)
"""
#: Deletes what was used last on days of which no usage is kept.
PRUNE = """
DELETE FROM hub.access_use
WHERE last_time < (SELECT oldest_day FROM hub.usage_level WHERE level = 'day')
"""
_READ = """
SELECT consumer_id, credential_id, method, surface, dataset, classes, first_time, last_time,
    received_time
FROM hub.access_use WHERE consumer_id = ANY ($1)
"""
_CONSUMERS = """
SELECT DISTINCT consumer_id FROM hub.access_use WHERE consumer_id > $1 AND last_time >= $2
ORDER BY 1 LIMIT $3
"""


class UseTimes(NamedTuple):
    """When something was used first and last, and when records left by it last."""

    first: dt.datetime
    last: dt.datetime
    received: dt.datetime | None

    def join(self, other: UseTimes) -> UseTimes:
        """The times of both together."""
        received = [t for t in (self.received, other.received) if t is not None]
        return UseTimes(
            min(self.first, other.first), max(self.last, other.last), max(received, default=None)
        )


class AccessUse(NamedTuple):
    """What was used, and when. ``classes`` is as in a series, such as "internal,pii:partial"."""

    consumer_id: str
    credential_id: str
    method: str
    surface: str
    dataset: str
    classes: str
    first: dt.datetime
    last: dt.datetime
    received: dt.datetime | None


#: What a use is known by: the columns of a series but plan and status.
_Use = tuple[str, str, str, str, str, str]


async def put_uses(connection: Connection, seen: Iterable[tuple[Series, UseTimes]], /) -> None:
    """Note the uses that groups of entries prove: calls of known consumers that were answered, and
    what streams showed before they failed."""
    uses: dict[_Use, UseTimes] = {}
    for series, times in seen:
        if not series.consumer_id or (series.status not in FAULTLESS and times.received is None):
            continue
        use = (series.consumer_id, series.credential_id, series.method, series.surface,
               series.dataset, series.classes)  # fmt: skip
        uses[use] = uses[use].join(times) if use in uses else times
    if uses:
        ordered = sorted(uses)  # several folds lock rows in one order
        columns: list[Any] = [*zip(*ordered, strict=True)]
        columns += zip(*(uses[use] for use in ordered), strict=True)
        await connection.execute(_PUT, *map(list, columns))


async def read_uses(
    connection: Connection, consumers: Collection[str]
) -> Mapping[str, list[AccessUse]]:
    """The uses of consumers, by consumer."""
    found: dict[str, list[AccessUse]] = {name: [] for name in consumers}
    for row in await connection.fetch(_READ, list(consumers)):
        found[row[0]].append(AccessUse(*row))
    return found


async def list_users(
    connection: Connection, after: str, since: dt.datetime, limit: int
) -> list[str]:
    """The ids, after one, of consumers that used anything since a time, in order; they may have
    been deleted."""
    return [row[0] for row in await connection.fetch(_CONSUMERS, after, since, limit)]
