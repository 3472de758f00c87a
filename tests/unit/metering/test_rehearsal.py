"""Rehearsals read of the rollups what each limit counts, at the finest level that is kept."""

from __future__ import annotations

import datetime as dt

from penstockd.audit.entry import DELIVERIES, REFUSALS
from penstockd.metering.counting import UsageCounts
from penstockd.metering.demand import read_demand, split_levels
from penstockd.metering.exempt import OPEN_SERVICES, RAISING, TELLING
from penstockd.metering.rehearsal import RehearsedConsumer, rehearse_terms
from penstockd.metering.rollups import UsageLevel, add_counts
from penstockd.metering.series import Series, identify_series
from penstockd.metering.trials import Verdict
from penstockd.policy.plans import (
    ConcurrencyLimit,
    Countable,
    Plan,
    PlanLimits,
    PlanQuota,
    PlanRate,
    QuotaPeriod,
    Terms,
)
from penstockd.store.database import Connection, Database

UTC = dt.UTC
GET = "/penstock.api.v1.Customers/GetCustomer"
IMPORT = "/penstock.api.v1.Orders/ImportOrders"
ALL = dict.fromkeys(UsageLevel, dt.date.min)
MINUTE, HOUR, DAY = UsageLevel


def series(**more: str) -> Series:
    given = {"consumer_id": "crm", "method": GET, "dataset": "customers", "status": "OK", **more}
    return Series(*(given.get(name, "") for name in Series._fields))


async def add(
    connection: Connection, *counted: tuple[dt.datetime, Series, tuple[int, int, int]]
) -> None:
    """Add calls, records and bytes."""
    ids = await identify_series(connection, {each for _, each, _ in counted})
    minutes = {
        (time, ids[each]): UsageCounts(calls, 0, records, size)
        for time, each, (calls, records, size) in counted
    }
    await add_counts(connection, minutes)


def quota(what: Countable, method: str = "", dataset: str = "") -> PlanQuota:
    return PlanQuota(what, QuotaPeriod.DAY, 5, method=method, dataset=dataset)


async def test_what_each_limit_counts(database: Database) -> None:
    time = dt.datetime(2026, 3, 1, tzinfo=UTC)
    limits: list[PlanRate | PlanQuota] = [
        PlanRate(1, 1), PlanRate(1, 1, method=GET), PlanRate(1, 1, dataset="orders"),
        *map(quota, Countable), quota(Countable.CALLS, dataset="customers"),
        quota(Countable.RECORDS, method=GET),
    ]  # fmt: skip
    hub = {"dataset": "", "classes": ""}
    async with database.transaction() as connection:
        await add(
            connection,
            (time, series(classes="pii"), (3, 30, 300)),
            (time, series(status="RATE_LIMITED"), (2, 0, 0)),
            (time, series(status="INTERNAL"), (1, 0, 0)),
            (time, series(method=IMPORT, dataset="orders"), (1, 500, 50)),
            (time, series(method=DELIVERIES, classes="pii"), (4, 8, 80)),
            (time, series(**hub, method=REFUSALS), (1000, 0, 0)),
            (time, series(**hub, method=OPEN_SERVICES[0] + "IssueToken"), (1000, 0, 1000)),
            (time, series(**hub, method=TELLING), (10, 0, 1000)),
            (time, series(**hub, method=min(RAISING)), (100, 0, 1000)),
            (time, series(consumer_id="bi"), (1000, 1000, 1000)),
        )
        found = {}
        for may_raise in (False, True):
            spans = [(MINUTE, time, time + dt.timedelta(hours=1))]
            groups = read_demand(connection, "crm", limits, spans, may_raise=may_raise)
            ((row,),) = [group async for group in groups]
            found[may_raise] = {
                limit.key: each[2:] for limit, each in zip(limits, row, strict=True)
            }
    assert found[False] == {
        "rate": (117, 117),
        "rate:Customers/GetCustomer": (6, 6),
        "rate:orders": (1, 1),
        "calls-per-day": (106, 107),
        "records-per-day": (38, 107),
        "bytes-per-day": (1430, 107),
        "webhook_attempts-per-day": (4, 107),
        "import_records-per-day": (500, 107),
        "calls-per-day:customers": (5, 6),
        "records-per-day:Customers/GetCustomer": (30, 6),
    }
    assert found[True]["rate"] == (117, 117)
    assert found[True]["calls-per-day"] == (6, 7)
    assert found[True]["bytes-per-day"] == (430, 7)


async def test_the_buckets_that_are_read_at_a_time_are_bounded(database: Database) -> None:
    """However many limits there are: each has a bucket in every row."""
    time, minute = dt.datetime(2026, 3, 1, tzinfo=UTC), dt.timedelta(minutes=1)
    spans = [(MINUTE, time, time + 5 * minute)]
    read = {}
    async with database.transaction() as connection:
        await add(connection, *((time + i * minute, series(), (1, 0, 0)) for i in range(5)))
        for count in (1, 200, 501):
            limits = [PlanRate(1, 1)] * count
            groups = read_demand(connection, "crm", limits, spans, may_raise=False)
            read[count] = [len(group) async for group in groups]
    assert read == {1: [5], 200: [2, 2, 1], 501: [1] * 5}


def test_each_part_of_a_range_is_read_at_the_finest_level_that_is_kept() -> None:
    low, high = dt.datetime(2026, 3, 1, 5, 30, tzinfo=UTC), dt.datetime(2026, 3, 9, 7, tzinfo=UTC)

    def at(day: int, hour: int = 0, minute: int = 0) -> dt.datetime:
        return dt.datetime(2026, 3, day, hour, minute, tzinfo=UTC)

    def split(minutes: dt.date, hours: dt.date, days: dt.date) -> list[object]:
        return list(split_levels(low, high, {MINUTE: minutes, HOUR: hours, DAY: days}))

    gone = dt.date.min
    assert split(gone, gone, gone) == [(MINUTE, low, high)]
    assert split(dt.date(2026, 3, 4), gone, gone) == [
        (HOUR, at(1, 5), at(4)),
        (MINUTE, at(4), high),
    ]
    assert split(dt.date(2026, 3, 8), dt.date(2026, 3, 4), dt.date(2026, 3, 2)) == [
        (DAY, at(2), at(4)),
        (HOUR, at(4), at(8)),
        (MINUTE, at(8), high),
    ]
    # Nothing is counted twice where a coarser level was dropped first.
    assert split(dt.date(2026, 3, 4), dt.date(2026, 3, 6), gone) == [
        (DAY, at(1), at(4)),
        (MINUTE, at(4), high),
    ]


async def test_a_rehearsal_of_two_consumers(database: Database) -> None:
    plan = Plan(
        "gold",
        limits=PlanLimits(
            (PlanRate(1, 10),),
            ConcurrencyLimit(calls=4, exports=1),
            (PlanQuota(Countable.CALLS, QuotaPeriod.DAY, 50),),
        ),
    )
    own = PlanLimits(rates=(PlanRate(unlimited=True),))
    consumers = [
        RehearsedConsumer("bi", Terms(plan, own.over(plan.limits))),
        RehearsedConsumer("crm", Terms(plan, plan.limits)),
    ]
    async with database.connection() as connection:
        now: dt.datetime = await connection.fetchval("SELECT now()")
        time = MINUTE.truncate(now) - dt.timedelta(days=3)
        old = time - dt.timedelta(days=40)
        await add(connection, (time, series(), (90, 0, 0)), (old, series(), (9000, 0, 0)))
        await connection.execute(
            "UPDATE hub.usage_level SET oldest_day = $1 WHERE level = 'minute'",
            time.date() - dt.timedelta(days=1),
        )
    async with database.snapshot() as connection:
        found = await rehearse_terms(connection, consumers, 30)
    told = {(f.consumer_id, f.limit): f for f in found.findings}
    assert {name: (f.verdict, f.refused) for name, f in told.items()} == {
        ("bi", "calls-per-day"): (Verdict.UNUSED, 0),
        ("bi", "concurrent-calls"): (Verdict.NOT_JUDGED, 0),
        ("bi", "concurrent-exports"): (Verdict.NOT_JUDGED, 0),
        ("crm", "rate"): (Verdict.REFUSES, 20),
        ("crm", "calls-per-day"): (Verdict.REFUSES, 40),
        ("crm", "concurrent-calls"): (Verdict.NOT_JUDGED, 0),
        ("crm", "concurrent-exports"): (Verdict.NOT_JUDGED, 0),
    }
    assert "how many exports were under way" in told["bi", "concurrent-exports"].reason
    assert told["crm", "rate"].first == time and told["crm", "rate"].resolution is MINUTE
    async with database.snapshot() as connection:
        longer = await rehearse_terms(connection, consumers, 60)
    (quota_then,) = [
        f for f in longer.findings if (f.consumer_id, f.limit) == ("crm", "calls-per-day")
    ]
    assert quota_then.resolution is HOUR and quota_then.refused == 40 + 8950
    assert quota_then.near_hours == 0 and longer.counted <= longer.start
