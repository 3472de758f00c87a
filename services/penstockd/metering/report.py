"""Reports of usage, from the rollups."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from penstockd.errors import ValueInvalid
from penstockd.metering.counting import UsageCounts
from penstockd.metering.periods import Period, RollupSpan, find_zone, list_rollup_spans
from penstockd.metering.rollups import UsageLevel, read_levels
from penstockd.store.database import Connection

#: What usage can be grouped by and restricted to, besides time: expressions over series ``s`` and
#: the classes ``c`` of the fields that they showed.
DIMENSIONS: Mapping[str, str] = {
    "consumer": "s.consumer_id",
    "credential": "s.credential_id",
    "plan": "s.plan",
    "method": "s.method",
    "surface": "s.surface",
    "dataset": "s.dataset",
    "status": "s.status",
    "field_class": "c.class",
}
FIELD_CLASS = "field_class"
_PERIODS = {period.value: period for period in Period}
_MINUTE, _DAY = dt.timedelta(minutes=1), dt.timedelta(days=1)
#: No report begins earlier or ends later.
_EARLIEST = dt.datetime(1970, 1, 2, tzinfo=dt.UTC)
_LATEST = dt.datetime(9000, 1, 1, tzinfo=dt.UTC)

#: The time of the oldest entry that is not counted yet: it is sealed and not folded, or not sealed.
#: Of the first, only the group that is folded next is looked at; of the second, the first 1,000.
_FRESH = """
WITH head AS (SELECT * FROM hub.audit_head)
SELECT least(now(), (
    SELECT min(e.entry_time) FROM hub.audit_chain AS c
    LEFT JOIN hub.usage_place AS p ON p.day = c.day AND p.anchor = c.anchor
    CROSS JOIN LATERAL (
        SELECT entry_ids FROM hub.audit_seal AS x
        WHERE x.day = c.day AND x.first_sequence > coalesce(p.folded, 0)
        ORDER BY x.first_sequence LIMIT 1) AS x
    JOIN hub.audit_entry AS e ON e.day = c.day AND e.entry_id = ANY (x.entry_ids)
    WHERE c.last_sequence > coalesce(p.folded, 0)
), (
    SELECT min(entry_time) FROM (
        SELECT e.entry_time FROM hub.audit_entry AS e
        WHERE e.entry_id > (SELECT foreign_id FROM head)
            AND e.txid >= (SELECT pg_snapshot_xmax(snapshot) FROM head)
        ORDER BY e.txid LIMIT 1000) AS e
), (
    SELECT min(e.entry_time) FROM hub.audit_entry AS e
    WHERE e.entry_id > (SELECT foreign_id FROM head)
        AND e.txid = ANY (ARRAY(SELECT pg_snapshot_xip(snapshot) FROM head))
))
"""
#: Without conditions, all series of a span lie side by side; with conditions, the rollups of each
#: series that meets them are looked up: a report of one consumer costs its own rollups.
_STRETCH = """
SELECT w.label, u.series_id, u.calls, u.errors, u.records, u.bytes
FROM unnest(${0}::timestamptz[], ${1}::timestamptz[], ${2}::timestamptz[]) AS w (label, low, high)
{wanted}JOIN {table} AS u ON {own}u.bucket_time >= w.low AND u.bucket_time < w.high
"""
_CLASSES = """
CROSS JOIN LATERAL unnest(
    CASE s.classes WHEN '' THEN ARRAY[''] ELSE string_to_array(s.classes, ',') END) AS c (class)
"""


class UsageRow(NamedTuple):
    """One group: the start of its period, its values by dimension, and its counts."""

    time: dt.datetime | None
    values: Mapping[str, str]
    counts: UsageCounts


@dataclass(frozen=True, slots=True)
class UsageQuestion:
    """Asks for usage from ``start`` to before ``end``, by groups, of what ``only`` names."""

    group_by: Sequence[str] = ()
    start: dt.datetime | None = None
    end: dt.datetime | None = None
    zone: str = ""
    only: Mapping[str, str] = field(default_factory=dict)
    order_by: str = ""

    @property
    def said(self) -> dict[str, str]:
        """Its conditions, for the audit entry and the page token."""
        times = {
            name: time.isoformat()
            for name, time in (("start_time", self.start), ("end_time", self.end))
            if time is not None
        }
        return {
            "group_by": ",".join(self.group_by),
            "time_zone": self.zone,
            "order_by": self.order_by,
            **times,
            **self.only,
        }

    @property
    def dimensions(self) -> list[str]:
        """The dimensions by which it groups."""
        return [name for name in self.group_by if name in DIMENSIONS]

    @property
    def period(self) -> Period | None:
        """The period by which it groups."""
        return next((_PERIODS[name] for name in self.group_by if name in _PERIODS), None)

    def check(self) -> None:
        """Raise ValueInvalid for names that mean nothing."""
        known = [*DIMENSIONS, *_PERIODS]
        for name in self.group_by:
            if name not in known:
                raise ValueInvalid.of("group_by", f"is none of {', '.join(known)}")
        if len(set(self.group_by)) < len(self.group_by):
            raise ValueInvalid.of("group_by", "names something twice")
        if sum(name in _PERIODS for name in self.group_by) > 1:
            raise ValueInvalid.of("group_by", f"names more than one of {', '.join(_PERIODS)}")
        if self.order_by not in ("", *UsageCounts._fields):
            raise ValueInvalid.of("order_by", f"is none of {', '.join(UsageCounts._fields)}")

    def span(self, now: dt.datetime) -> tuple[dt.datetime, dt.datetime]:
        """The whole minutes that it asks for. Raises ValueInvalid."""
        end = min(max(self.end or now, _EARLIEST), _LATEST)
        end = UsageLevel.MINUTE.truncate(end + _MINUTE - dt.timedelta(microseconds=1))
        start = UsageLevel.MINUTE.truncate(min(max(self.start or end - _DAY, _EARLIEST), _LATEST))
        if end < start:
            raise ValueInvalid.of("end_time", "is before start_time")
        return start, end


@dataclass(frozen=True, slots=True)
class UsageReport:
    """Rows, the minutes that they cover, and the time before which every call is counted."""

    rows: list[UsageRow]
    start: dt.datetime
    end: dt.datetime
    fresh: dt.datetime


async def report_usage(
    connection: Connection, question: UsageQuestion, limit: int, skip: int
) -> UsageReport:
    """At most ``limit`` rows of a report, after the first ``skip``. Raises ValueInvalid."""
    question.check()
    zone = find_zone(question.zone)
    fresh, now = await read_freshness(connection)
    start, end = question.span(now)
    oldest = await read_levels(connection)
    stretches = list_rollup_spans(start, end, question.period, zone, oldest)
    sql, arguments = _compose_query(question, stretches)
    found = await connection.fetch(f"{sql} LIMIT {limit:d} OFFSET {skip:d}", *arguments)
    names = question.dimensions
    rows = [
        UsageRow(
            row[0] if question.period is not None else None,
            dict(zip(names, row[1 : 1 + len(names)], strict=True)),
            UsageCounts(*row[1 + len(names) :]),
        )
        for row in found
    ]
    return UsageReport(rows, start, end, fresh)


async def read_freshness(connection: Connection) -> tuple[dt.datetime, dt.datetime]:
    """The time before which every call is counted, and the database's time. Read before the
    rollups, which then hold at least that."""
    row = await connection.fetchrow(f"SELECT ({_FRESH}), now()")
    assert row is not None, "it has no condition"
    return row[0], row[1]


class _Arguments(list[Any]):
    """The arguments of a query."""

    def place(self, value: Any) -> str:
        """Add an argument; returns its name in the query."""
        self.append(value)
        return f"${len(self)}"


def _compose_query(
    question: UsageQuestion, stretches: Sequence[RollupSpan]
) -> tuple[str, list[Any]]:
    """The query for the groups. Values are arguments; names are those of this module."""
    arguments = _Arguments()
    rollups = _compose_rollups(question, stretches, arguments)
    names = question.dimensions
    only = question.only.get(FIELD_CLASS)
    by_class = _CLASSES if FIELD_CLASS in names or only is not None else ""
    where = "" if only is None else f"WHERE c.class = {arguments.place(only)}"
    groups = ["r.label" if question.period is not None else "NULL::timestamptz"]
    groups += [DIMENSIONS[name] for name in names]
    places = [str(at) for at in range(1, len(groups) + 1)]
    metric = (
        len(groups) + 1 + UsageCounts._fields.index(question.order_by) if question.order_by else 0
    )
    order = ([f"{metric} DESC"] if metric else []) + places
    sums = ", ".join(f"sum(r.{name})::bigint" for name in UsageCounts._fields)
    return (
        f"SELECT {', '.join(groups)}, {sums} FROM ({rollups}) AS r"
        f" JOIN hub.usage_series AS s USING (series_id) {by_class}"
        f" {where} GROUP BY {', '.join(places)} ORDER BY {', '.join(order)}",
        list(arguments),
    )


def _compose_rollups(
    question: UsageQuestion, stretches: Sequence[RollupSpan], arguments: _Arguments
) -> str:
    """The query for the counts of each label and series that meets the conditions."""
    conditions = [
        f"{DIMENSIONS[name]} = {arguments.place(value)}"
        for name, value in question.only.items()
        if name != FIELD_CLASS
    ]
    wanted = own = ""
    if conditions:
        wanted = f"JOIN hub.usage_series AS s ON {' AND '.join(conditions)} "
        own = "u.series_id = s.series_id AND "
    parts = []
    for level in UsageLevel:
        spans = [stretch for stretch in stretches if stretch.level is level]
        at = len(arguments) + 1
        arguments += [[s.label for s in spans], [s.low for s in spans], [s.high for s in spans]]
        parts.append(_STRETCH.format(at, at + 1, at + 2, table=level.table, wanted=wanted, own=own))
    sums = ", ".join(f"sum({name}) AS {name}" for name in UsageCounts._fields)
    return f"SELECT label, series_id, {sums} FROM ({' UNION ALL '.join(parts)}) AS u GROUP BY 1, 2"
