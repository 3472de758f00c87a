"""What each limit of a consumer counted, bucket by bucket, read from the rollups."""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

from penstockd.audit.entry import COUNTED_METHODS, DELIVERIES
from penstockd.metering.counting import DATASET_METHODS
from penstockd.metering.exempt import (
    HUB_TO_BLAME,
    IMPORTING,
    OPEN_SERVICES,
    RAISING,
    TELLING,
)
from penstockd.metering.rollups import UsageLevel
from penstockd.metering.trials import Bucket
from penstockd.policy.plans import Countable, PlanQuota, PlanRate
from penstockd.store.database import Connection

#: Buckets, of all limits together, that are read at a time: those of one row at least.
_GROUP = 500


def _quote_texts(texts: Sequence[str]) -> str:
    return ", ".join(f"'{text}'" for text in texts)


_CALL = f"s.method NOT IN ({_quote_texts(COUNTED_METHODS)})"
_NOT_OPEN = " AND ".join(f"NOT starts_with(s.method, '{name}')" for name in OPEN_SERVICES)
_IMPORTS = f"split_part(s.method, '/', 3) ~ '^({'|'.join(IMPORTING)})'"
#: The series that each kind of quota counts, and the number that it counts of them. Fields were
#: shown wherever a series has classes: what is written and not shown is no record that left.
_COUNTED: Mapping[Countable, tuple[str, str]] = {
    Countable.CALLS: (
        "calls",
        f"{_CALL} AND s.status NOT IN ({_quote_texts(sorted(HUB_TO_BLAME))})",
    ),
    Countable.RECORDS: ("records", "s.classes <> ''"),
    Countable.BYTES: ("bytes", "true"),
    Countable.WEBHOOK_ATTEMPTS: ("calls", f"s.method = '{DELIVERIES}'"),
    Countable.IMPORT_RECORDS: ("records", _IMPORTS),
}
_ROWS = """
SELECT u.bucket_time, {columns} FROM hub.usage_series AS s
JOIN {table} AS u ON u.series_id = s.series_id AND u.bucket_time >= $2 AND u.bucket_time < $3
WHERE s.consumer_id = $1 AND {series} GROUP BY 1 ORDER BY 1
"""


def split_levels(
    low: dt.datetime, high: dt.datetime, oldest: Mapping[UsageLevel, dt.date]
) -> Iterator[tuple[UsageLevel, dt.datetime, dt.datetime]]:
    """The finest rollups that are kept of each part of a range, in order; the first bucket may
    begin before it, and dropped days are left out."""
    after = high
    found = []
    for level in UsageLevel:
        first = _start_day(oldest[level])
        if (begin := max(level.truncate(low), first)) < after:
            found.append((level, begin, after))
        after = min(after, first)
    yield from reversed(found)


async def read_demand(
    connection: Connection,
    consumer_id: str,
    limits: Sequence[PlanRate | PlanQuota],
    spans: Sequence[tuple[UsageLevel, dt.datetime, dt.datetime]],
    *,
    may_raise: bool,
) -> AsyncIterator[Sequence[Sequence[Bucket]]]:
    """The buckets with usage in order, in groups: of each, one for every limit.

    The connection must be in a transaction. ``may_raise``: whether the consumer may raise limits,
    by calls that no quota counts.
    """
    arguments: list[Any] = []
    columns = ", ".join(
        column for limit in limits for column in _list_columns(limit, arguments, may_raise)
    )
    for level, low, high in spans:
        sql = _ROWS.format(columns=columns, table=level.table, series=_NOT_OPEN)
        cursor = await connection.cursor(sql, consumer_id, low, high, *arguments)
        while rows := await cursor.fetch(max(1, _GROUP // max(1, len(limits)))):
            yield [_split_row(level, row) for row in rows]


def _split_row(level: UsageLevel, row: Any) -> list[Bucket]:
    return [Bucket(level, row[0], *row[at : at + 2]) for at in range(1, len(row), 2)]


def _list_columns(
    limit: PlanRate | PlanQuota, arguments: list[Any], may_raise: bool
) -> Iterator[str]:
    """The amount that a limit counts, and all calls that it reaches."""
    reach = _write_reach(limit, arguments)
    if isinstance(limit, PlanRate):
        name, counted, called = "calls", f"{_CALL} AND {reach}", f"{_CALL} AND {reach}"
    else:
        exempt = [TELLING, *(sorted(RAISING) if may_raise else ())]
        reach += f" AND s.method NOT IN ({_quote_texts(exempt)})"
        name, what = _COUNTED[limit.what]
        counted, called = f"{what} AND {reach}", f"{_CALL} AND {reach}"
    yield _write_sum(name, counted)
    yield _write_sum("calls", called)


def _write_reach(limit: PlanRate | PlanQuota, arguments: list[Any]) -> str:
    """The condition for the one method or dataset that a limit counts."""
    if limit.method:
        arguments.append(limit.method)
        return f"s.method = ${len(arguments) + 3}"
    if limit.dataset:
        arguments.append(limit.dataset)
        own = f"(starts_with(s.method, '{DATASET_METHODS}') OR s.method = '{DELIVERIES}')"
        return f"s.dataset = ${len(arguments) + 3} AND {own}"
    return "true"


def _write_sum(name: str, condition: str) -> str:
    return f"coalesce(sum(u.{name}) FILTER (WHERE {condition}), 0)::bigint"


def _start_day(day: dt.date) -> dt.datetime:
    return dt.datetime.combine(max(day, dt.date(1970, 1, 2)), dt.time(), dt.UTC)
