"""Reports count what falls into each period of any time zone, over changes of the clock."""

from __future__ import annotations

import datetime as dt
import json
import random
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from chance import SEED
from penstockd.errors import ValueInvalid
from penstockd.metering.counting import UsageCounts
from penstockd.metering.periods import Period, list_rollup_spans
from penstockd.metering.report import UsageQuestion, _compose_query, report_usage
from penstockd.metering.rollups import UsageLevel, add_counts
from penstockd.metering.series import Series, identify_series
from penstockd.store.database import Connection, Database

UTC = dt.UTC
WHOLE = dict.fromkeys(UsageLevel, dt.date.min)
#: The months hold changes of the clock: by an hour, by half an hour, at midnight, and none.
ZONES = {
    "Europe/Berlin": dt.datetime(2026, 3, 20, tzinfo=UTC),
    "America/New_York": dt.datetime(2026, 10, 25, tzinfo=UTC),
    "Australia/Lord_Howe": dt.datetime(2026, 3, 30, tzinfo=UTC),
    "Africa/Cairo": dt.datetime(2026, 4, 20, tzinfo=UTC),
    "Asia/Kolkata": dt.datetime(2026, 1, 25, tzinfo=UTC),
    "": dt.datetime(2026, 2, 20, tzinfo=UTC),
}


def series(**more: str) -> Series:
    given = {"consumer_id": "crm", "method": "/Get", "status": "OK", **more}
    return Series(*(given.get(name, "") for name in Series._fields))


async def add_minutes(
    connection: Connection, counted: Mapping[tuple[dt.datetime, Series], UsageCounts]
) -> None:
    ids = await identify_series(connection, {each for _, each in counted})
    await add_counts(connection, {(t, ids[each]): c for (t, each), c in counted.items()})


def local_start(time: dt.datetime, period: Period, zone: dt.tzinfo) -> tuple[int, ...]:
    """The period of a time, as people there name it."""
    local = time.astimezone(zone)
    parts = (local.year, local.month, local.day, local.hour, local.minute)
    return parts[: {"month": 2, "day": 3, "hour": 4, "minute": 5}[period]]


@pytest.mark.parametrize("name", ZONES)
async def test_periods_of_any_zone(name: str, database: Database) -> None:
    chance = random.Random(SEED)
    zone, begin = ZoneInfo(name) if name else UTC, ZONES[name]
    minutes = [begin + dt.timedelta(minutes=chance.randrange(25 * 1440)) for _ in range(400)]
    counted = {(m, series()): UsageCounts(1, 0, n, 0) for n, m in enumerate(minutes)}
    async with database.connection() as connection:
        await add_minutes(connection, counted)
        for period in (None, Period.MONTH, Period.DAY, Period.HOUR):
            start, end = sorted(chance.sample(range(26 * 1440), 2))
            low, high = (begin + dt.timedelta(minutes=n) for n in (start, end))
            group_by = (period.value,) if period is not None else ()
            question = UsageQuestion(group_by, low, high, name)
            report = await report_usage(connection, question, 2000, 0)
            right: Counter[tuple[int, ...]] = Counter()
            for (minute, _), counts in counted.items():
                if low <= minute < high:
                    right[local_start(minute, period, zone) if period else ()] += counts.records
            found = {
                local_start(row.time, period, zone) if period and row.time else (): row
                for row in report.rows
            }
            assert len(found) == len(report.rows) or period is Period.HOUR
            if period is not Period.HOUR:  # an hour that the clock repeats has two rows
                assert {k: row.counts.records for k, row in found.items()} == dict(right)
            assert sum(row.counts.records for row in report.rows) == sum(right.values())
            assert (report.start, report.end) == (low, high)


def test_stretches_are_as_coarse_as_possible() -> None:
    start, end = dt.datetime(2026, 1, 1, 22, 58, tzinfo=UTC), dt.datetime(2026, 3, 1, tzinfo=UTC)
    found = list_rollup_spans(start, end, None, UTC, WHOLE)
    assert [s.level for s in found] == [UsageLevel.MINUTE, UsageLevel.HOUR, UsageLevel.DAY]
    months = list_rollup_spans(start, end, Period.MONTH, ZoneInfo("Europe/Berlin"), WHOLE)
    assert UsageLevel.MINUTE not in {s.level for s in months[2:]}
    assert {s.label for s in months} == {
        dt.datetime(2025, 12, 31, 23, tzinfo=UTC),
        dt.datetime(2026, 1, 31, 23, tzinfo=UTC),
        dt.datetime(2026, 2, 28, 23, tzinfo=UTC),
    }
    days = list_rollup_spans(start, end, Period.DAY, ZoneInfo("Asia/Kolkata"), WHOLE)
    assert UsageLevel.MINUTE in {s.level for s in days}  # days there begin at 18:30
    for stretches in (found, months, days):
        ordered = sorted((s.low, s.high) for s in stretches)
        assert ordered[0][0] == start and ordered[-1][1] == end
        assert all(a[1] == b[0] for a, b in pairwise(ordered))


def test_a_report_of_dropped_rollups_is_refused() -> None:
    start, end = dt.datetime(2026, 1, 1, tzinfo=UTC), dt.datetime(2026, 1, 3, tzinfo=UTC)
    kept = {**WHOLE, UsageLevel.MINUTE: dt.date(2026, 1, 2)}
    assert list_rollup_spans(start, end, Period.DAY, UTC, kept)
    with pytest.raises(ValueInvalid, match="by the minute is kept from 2026-01-02"):
        list_rollup_spans(start, end, Period.DAY, ZoneInfo("Asia/Kolkata"), kept)
    with pytest.raises(ValueInvalid, match="more than 5,000 periods"):
        list_rollup_spans(start, start + dt.timedelta(days=9), Period.MINUTE, UTC, WHOLE)


async def test_groups_filters_order_and_pages(database: Database) -> None:
    minute = dt.datetime(2026, 1, 1, tzinfo=UTC)
    counted = {
        (minute, series(consumer_id="a", classes="internal,pii:hash")): UsageCounts(5, 1, 10, 100),
        (minute, series(consumer_id="b", status="RATE_LIMITED")): UsageCounts(9, 9, 0, 0),
        (minute, series(consumer_id="c", classes="internal")): UsageCounts(7, 0, 3, 900),
    }
    end = minute + dt.timedelta(hours=1)
    async with database.connection() as connection:
        await add_minutes(connection, counted)

        async def ask(*by: str, order: str = "", limit: int = 9, skip: int = 0, **only: str):  # type: ignore[no-untyped-def]
            question = UsageQuestion(by, minute, end, "", only, order)
            rows = (await report_usage(connection, question, limit, skip)).rows
            return [(*row.values.values(), row.counts) for row in rows]

        assert await ask() == [(UsageCounts(21, 10, 13, 1000),)]
        assert [row[0] for row in await ask("consumer")] == ["a", "b", "c"]
        assert [row[0] for row in await ask("consumer", order="bytes")] == ["c", "a", "b"]
        assert [row[0] for row in await ask("consumer", order="calls", limit=1, skip=1)] == ["c"]
        assert await ask("status", consumer="b") == [("RATE_LIMITED", UsageCounts(9, 9, 0, 0))]
        # What showed several classes counts for each.
        assert await ask("field_class") == [
            ("", UsageCounts(9, 9, 0, 0)),
            ("internal", UsageCounts(12, 1, 13, 1000)),
            ("pii:hash", UsageCounts(5, 1, 10, 100)),
        ]
        assert await ask(field_class="pii:hash") == [(UsageCounts(5, 1, 10, 100),)]
        assert await ask("consumer", consumer="nobody") == []
        for wrong in (
            UsageQuestion(("colour",)),
            UsageQuestion(("day", "month")),
            UsageQuestion(("plan", "plan")),
            UsageQuestion(order_by="consumer"),
            UsageQuestion(zone="Mars/Base"),
            UsageQuestion(zone="/etc/passwd"),
            UsageQuestion(start=end, end=minute),
        ):
            with pytest.raises(ValueInvalid):
                await report_usage(connection, wrong, 1, 0)


async def count_read(connection: Connection, question: UsageQuestion) -> int:
    """The rollups that the query of a report reads, those included that it throws away."""
    assert question.start and question.end
    spans = list_rollup_spans(question.start, question.end, question.period, UTC, WHOLE)
    sql, arguments = _compose_query(question, spans)
    found = await connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", *arguments)

    def walk(node: dict[str, Any]) -> Iterator[dict[str, Any]]:
        yield node
        for inner in node.get("Plans", []):
            yield from walk(inner)

    names = ("Actual Rows", "Rows Removed by Filter", "Rows Removed by Index Recheck")
    return sum(
        round(node["Actual Loops"] * sum(node.get(name, 0) for name in names))
        for node in walk(json.loads(found)[0]["Plan"])
        if node.get("Relation Name", "").startswith("usage_m")
    )


async def test_a_report_of_one_consumer_reads_its_own_rollups(database: Database) -> None:
    start = dt.datetime(2026, 1, 1, 0, 1, tzinfo=UTC)
    minutes = [start + dt.timedelta(minutes=n) for n in range(50)]
    consumers = [f"c{n}" for n in range(100)]
    counted = {
        (minute, series(consumer_id=name)): UsageCounts(1, 0, n, 0)
        for minute in minutes
        for n, name in enumerate(consumers)
    }
    end = start + dt.timedelta(minutes=50)
    async with database.connection() as connection:
        await add_minutes(connection, counted)
        await connection.execute("ANALYZE hub.usage_minute; ANALYZE hub.usage_series")
        own = UsageQuestion(("method",), start, end, "", {"consumer": "c7"})
        rows = (await report_usage(connection, own, 9, 0)).rows
        assert [row.counts for row in rows] == [UsageCounts(50, 0, 350, 0)]
        assert await count_read(connection, own) == len(minutes)
        every = UsageQuestion(("method",), start, end)
        assert await count_read(connection, every) == len(counted)  # the control
