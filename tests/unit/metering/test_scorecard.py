"""The scorecard: each figure from what was recorded, beside that of the period before."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from penstockd.audit.entry import DELIVERIES
from penstockd.errors import DatabaseUnavailable, ValueInvalid
from penstockd.metering.counting import UsageCounts
from penstockd.metering.door_hours import DoorCounts, DoorHours, sum_door
from penstockd.metering.figures import (
    CallOutcomes,
    Figure,
    find_median,
    find_share,
    fold_outcomes,
    judge_status,
    rate_door,
)
from penstockd.metering.report import UsageRow
from penstockd.metering.rollups import UsageLevel, add_counts
from penstockd.metering.scorecard import METRICS, Scorecard, Side, read_scorecard, score_metrics
from penstockd.metering.scorecard_files import SCORECARDS
from penstockd.metering.series import Series, identify_series
from penstockd.observe.sidecar import DoorReading, parse_door
from penstockd.store.database import Connection, Database

NOW = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
LIST = "/penstock.api.v1.Customers/ListCustomers"


def row(status: str, calls: int, errors: int, method: str = LIST) -> UsageRow:
    return UsageRow(None, {"method": method, "status": status}, UsageCounts(calls, errors, 0, 0))


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("OK", ""),
        ("CANCELLED", ""),
        ("RECORD_NOT_FOUND", ""),
        ("FILTER_INVALID", ""),
        ("UNAUTHENTICATED", "denied"),
        ("PERMISSION_DENIED", "denied"),
        ("ACCESS_CHANGED", "denied"),
        ("RATE_LIMITED", "limited"),
        ("QUOTA_EXHAUSTED", "limited"),
        ("TOO_MANY_STREAMS", "limited"),
        ("CALL_TOO_COSTLY", ""),
        ("STORAGE_FULL", ""),
        ("INTERNAL", "failed"),
        ("DATABASE_UNAVAILABLE", "failed"),
        ("HUB_UNAVAILABLE", "failed"),
        ("SUPPRESSED", "failed"),
    ],
)
def test_what_an_outcome_counts_as(status: str, kind: str) -> None:
    assert judge_status(status) == kind


def test_outcomes_are_folded() -> None:
    rows = [
        row("OK", 90, 0),
        row("PERMISSION_DENIED", 4, 4),
        row("UNAUTHENTICATED", 1, 1),
        row("QUOTA_EXHAUSTED", 2, 3),  # and a stream that it ended
        row("INTERNAL", 1, 1),
        row("RECORD_NOT_FOUND", 2, 2),
        row("OK", 50, 0, DELIVERIES),  # no call
        row("INTERNAL", 5, 5, DELIVERIES),
    ]
    assert fold_outcomes(rows) == CallOutcomes(100, 5, 3, 1)


def test_a_share_of_nothing_is_absent() -> None:
    assert find_share(3, 4, "calls", NOW) == Figure(0.75, 4, fresh=NOW)
    assert find_share(-1, 4, "calls", NOW).value == 0.0
    nothing = find_share(0, 0, "calls", NOW)
    assert nothing.value is None and nothing.absent == "there were no calls in the period"
    assert find_median([5.0, 1.0, 3.0], NOW).value == 3.0
    assert find_median([4.0, 1.0], NOW) == Figure(2.5, 2, fresh=NOW)
    assert find_median([], NOW).value is None


def test_trends_follow_the_side_of_the_target() -> None:
    nothing = {metric.name: Figure(absent="nothing") for metric in METRICS}
    now = {**nothing, "export_completion": Figure(0.99), "sync_latency": Figure(6.0),
           "data_accuracy": Figure(0.5), "response_time": Figure(0.1),
           "api_availability": Figure(0.5, source="sidecar")}  # fmt: skip
    before = {**nothing, "export_completion": Figure(0.9), "sync_latency": Figure(5.0),
              "data_accuracy": Figure(0.5),
              "api_availability": Figure(0.9, source="usage")}  # fmt: skip
    found = {s.metric.name: (s.trend, s.met) for s in score_metrics(now, before)}
    assert found["export_completion"] == ("BETTER", True)
    assert found["sync_latency"] == ("WORSE", False)
    assert found["data_accuracy"] == ("SAME", False)
    assert found["response_time"] == ("", True)  # nothing to compare with
    assert found["api_availability"] == ("", False)  # by different sources
    assert found["usage_compliance"] == ("", None)


def test_every_metric_says_how_it_is_computed() -> None:
    assert len({metric.name for metric in METRICS}) == len(METRICS) == 13
    for metric in METRICS:
        assert metric.how.endswith(".") and metric.source
        assert metric.side is Side.AT_MOST or 0 < metric.target <= 1
    # Those without a source have no value, and name what is missing.
    assert [m.name for m in METRICS if m.missing] == ["documentation_quality", "page_feedback"]


def test_times_are_interpolated_between_bounds() -> None:
    counts = DoorCounts(100, 0, 0, NOW, {10.0: 0, 50.0: 80, 100.0: 100, 250.0: 100})
    assert counts.quantile(0.5) == 35.0
    assert counts.quantile(0.95) == 87.5
    assert counts.quantile(1.0) == 100.0
    assert DoorCounts(0, 0, 0, None, {}).quantile(0.95) is None
    assert DoorCounts(0, 0, 0, None, {10.0: 0}).quantile(0.95) is None


def test_availability_is_the_sidecars_if_it_was_read() -> None:
    outcomes = CallOutcomes(calls=10, failed=1)
    read = rate_door(DoorCounts(90, 8, 10, NOW, {250.0: 90}), outcomes, NOW)
    assert read["api_availability"] == Figure(0.82, 100, fresh=NOW, source="sidecar")
    assert read["response_time"].value == pytest.approx(0.2375)
    alone = rate_door(DoorCounts(0, 0, 0, None, {}), outcomes, NOW)
    assert alone["api_availability"] == Figure(0.9, 10, fresh=NOW, source="usage")
    assert alone["response_time"].value is None and "sidecar" in alone["response_time"].absent


STATS = """
{"stats": [{"name": "http.public.downstream_rq_5xx", "value": 3},
 {"name": "http.public.downstream_rq_completed", "value": 6},
 {"name": "http.public.downstream_rq_overload_close", "value": 1},
 {"name": "connection_limit.public.limited_connections", "value": 2},
 {"name": "listener.127.0.0.1_1.downstream_cx_overflow", "value": 4},
 {"name": "listener.127.0.0.1_1.downstream_global_cx_overflow", "value": 0},
 {"histograms": [{"name": "http.public.downstream_rq_time", "buckets": [
  {"upper_bound": 0.5, "interval": 6, "cumulative": 5},
  {"upper_bound": 3e+05, "interval": 6, "cumulative": 6}]}]}]}
"""


def test_the_sidecars_figures_are_read() -> None:
    found = parse_door(json.loads(STATS))
    assert found == DoorReading(6, 3, 7, {0.5: 5, 300000.0: 6})
    later = DoorReading(16, 3, 8, {0.5: 9, 300000.0: 16})
    assert later.since(found) == DoorReading(10, 0, 1, {0.5: 4, 300000.0: 10})
    assert found.since(later) == found  # it has begun again
    with pytest.raises(KeyError):
        parse_door({"stats": []})


async def test_answers_are_added_to_their_hour(database: Database) -> None:
    readings: list[DoorReading | Exception] = [
        DoorReading(100, 50, 0, {1.0: 50, 250.0: 100}),  # before the keeper
        DoorReading(110, 51, 1, {1.0: 55, 250.0: 110}),
        OSError("gone"),
        DoorReading(4, 1, 0, {1.0: 1, 250.0: 4}),  # another sidecar
    ]

    def read(_: Path) -> DoorReading:
        found = readings.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    hours = DoorHours(database, Path("none"), "n1", read)
    while readings:
        await hours.note()
    async with database.connection() as connection:
        now = await connection.fetchval("SELECT now()")
        span = now - dt.timedelta(days=1), now + dt.timedelta(hours=2)
        found = await sum_door(connection, *span)
        assert found.fresh is not None
        assert (found.requests, found.failures, found.rejected) == (14, 2, 1)
        assert found.times == {1.0: 6, 250.0: 14}
        earlier = await sum_door(connection, *(t - dt.timedelta(days=3) for t in span))
        assert earlier == DoorCounts(0, 0, 0, None, {})
        # Two nodes, one of them with other bounds, and an hour that is too old.
        await connection.execute(
            "INSERT INTO hub.door_hour VALUES"
            " (date_trunc('hour', now(), 'UTC'), 'n2', '{1,500}', 2, 0, 0, '{1,2}', now()),"
            " (now() - interval '900 days', 'n2', '{1}', 2, 0, 0, '{1}', now())"
        )
        both = await sum_door(connection, *span)
        assert (both.requests, both.times) == (16, {1.0: 7, 250.0: 14, 500.0: 2})
    readings.append(DoorReading(5, 1, 0, {1.0: 1, 250.0: 5}))
    await hours.note()
    async with database.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM hub.door_hour") == 2


async def test_what_is_answered_while_the_database_is_away_counts(database: Database) -> None:
    """It is mostly failures: availability is about them most of all."""
    readings = [DoorReading(n, n - 100, 0, {1.0: n}) for n in (100, 120, 150)]
    outages = [DatabaseUnavailable("away")]

    def transaction() -> Any:
        if outages:
            raise outages.pop()
        return database.transaction()

    flaky: Any = SimpleNamespace(transaction=transaction)
    hours = DoorHours(flaky, Path("none"), "n1", lambda _: readings.pop(0))
    await hours.note()
    with pytest.raises(DatabaseUnavailable):
        await hours.note()
    await hours.note()
    async with database.connection() as connection:
        now = await connection.fetchval("SELECT now()")
        found = await sum_door(connection, now - dt.timedelta(days=1), now + dt.timedelta(hours=2))
    assert (found.requests, found.failures) == (50, 50)


async def fill(connection: Connection, time: dt.datetime, denied: int) -> None:
    """Calls of one hour of a day: 10, and some that were denied."""
    base = Series("crm", "k1", "", LIST, "REST", "customers", "OK", "")
    refused = base._replace(status="PERMISSION_DENIED")
    counted = {base: UsageCounts(10 - denied, 0, 5, 5), refused: UsageCounts(denied, denied, 0, 0)}
    ids = await identify_series(connection, counted)
    await add_counts(connection, {(time, ids[s]): counts for s, counts in counted.items()})


_RECEIPT = """
INSERT INTO hub.receipt (receipt_id, request_id, consumer_id, dataset, format, request_digest,
    policy_revision, cursor, state, session_pid, session_start, start_time, finish_time, snapshot)
VALUES ($1, 'r', 'crm', 'customers', $2, '', 1, '', $3, 0, now(), $4, $5, $6)
"""


async def add_receipts(connection: Connection, today: dt.datetime) -> None:
    """Exports that ended in every way, today and two days ago."""
    for name, form, state, end, snapshot in (
        ("a", "CSV", "COMPLETE", today, None),
        ("b", "CSV", "COMPLETE", today, None),
        ("c", "CSV", "CANCELLED", today, None),
        ("d", "CHANGES", "FAILED", today, None),  # a stream of changes is no export
        ("e", "CSV", "RUNNING", None, "gone"),  # its worker died
        ("f", "CSV", "FAILED", today - dt.timedelta(days=2), None),
    ):
        await connection.execute(_RECEIPT, name, form, state, end or today, end, snapshot)


@pytest.fixture
async def scored(database: Database) -> Scorecard:
    """A scorecard of two days, of what happened on several."""
    async with database.connection() as connection:
        await connection.execute("SELECT hub.add_audit_partitions(1)")
        today = await connection.fetchval("SELECT date_trunc('day', now(), 'UTC')")
        for days, denied in ((0, 1), (1, 0), (2, 4), (3, 2), (9, 9)):
            await fill(connection, today - dt.timedelta(days=days), denied)
        await connection.execute(
            "INSERT INTO hub.check_day VALUES ($1, 'crm', 'customers', 4, 3, 100, 1)", today.date()
        )
        await add_receipts(connection, today)
        return await read_scorecard(connection, 2)


def test_periods_stand_beside_each_other(scored: Scorecard) -> None:
    values = {s.metric.name: s for s in scored.metrics}
    access, exports = values["access_success_rate"], values["export_completion"]
    assert (access.figure.value, access.figure.samples) == (0.95, 20)
    assert (access.previous.value, access.trend, access.met) == (0.7, "BETTER", False)
    assert (exports.figure.value, exports.figure.samples) == (0.5, 4)
    assert (exports.previous.value, exports.trend) == (0.0, "BETTER")
    assert values["data_accuracy"].figure.value == 0.75
    assert values["consistency_rate"].figure.value == 0.99
    assert values["consistency_rate"].figure.samples == 100
    assert values["data_accuracy"].previous.value is None
    for name in ("sync_success_rate", "sync_latency", "time_to_first_call"):
        assert values[name].figure.value is None and values[name].figure.absent
    assert scored.start == UsageLevel.DAY.truncate(scored.end) - dt.timedelta(days=1)
    assert scored.previous_start == scored.start - dt.timedelta(days=2)


async def test_periods_have_bounds(database: Database) -> None:
    async with database.connection() as connection:
        for days in (-1, 367):
            with pytest.raises(ValueInvalid, match="days"):
                await read_scorecard(connection, days)


def test_a_scorecard_in_files(scored: Scorecard) -> None:
    files = {form: write(scored) for form, write in SCORECARDS.items()}
    document: dict[str, Any] = json.loads(files["JSON"])
    by_name = {m["metric"]: m for m in document["metrics"]}
    assert by_name["access_success_rate"]["value"] == 0.95
    assert by_name["access_success_rate"]["samples"] == "20"
    assert "value" not in by_name["page_feedback"] and by_name["page_feedback"]["absentReason"]
    assert "<metric>access_success_rate</metric>" in files["XML"]
    assert "access_success_rate,Access success rate,access,RATIO,0.99" in files["CSV"]
    assert "95.00%" in files["HTML"] and "at least 99.00%" in files["HTML"]


async def test_deliveries_and_new_consumers(database: Database) -> None:
    async with database.connection() as connection:
        await connection.execute("SELECT hub.add_audit_partitions(1)")
        await connection.execute("""
            INSERT INTO hub.consumer (consumer_id) VALUES ('old'), ('new'), ('idle');
            INSERT INTO hub.credential (credential_id, consumer_id, kind, digest, create_time)
            VALUES ('k0', 'old', 'api_key', '', now() - interval '40 days'),
                ('k1', 'old', 'api_key', '', now()),
                ('k2', 'new', 'api_key', '', now()), ('k3', 'idle', 'api_key', '', now());
            INSERT INTO hub.webhook (webhook_id, consumer_id, kind, selections, options,
                start_number) VALUES ('w', 'new', 'HTTP', '[]', '{}', 0);
        """)
        await connection.execute(
            "INSERT INTO hub.access_use SELECT 'new', 'k2', $1, 'REST', 'customers', '',"
            " create_time + interval '90 seconds', now(), NULL"
            " FROM hub.credential WHERE credential_id = 'k2'",
            LIST,
        )
        for number, (state, cause, seconds) in enumerate((
            ("DELIVERED", "EVENT", 2), ("DELIVERED", "EVENT", 2), ("DELIVERED", "REPLAY", 900),
            ("DEAD", "EVENT", 5), ("DELIVERED", "TEST", 5), ("PENDING", "EVENT", 5),
        )):  # fmt: skip
            await connection.execute(
                "INSERT INTO hub.webhook_delivery (delivery_id, webhook_id, cause, event_type,"
                " event_ids, previous, state, event_time, create_time, finish_time)"
                " VALUES ($1, 'w', $2, 't', '{}', '{}', $3, now() - $4::float8 * interval '1 s',"
                " now(), CASE WHEN $3 <> 'PENDING' THEN now() END)",
                str(number), cause, state, float(seconds),
            )  # fmt: skip
        time = await connection.fetchval("SELECT date_trunc('day', now(), 'UTC')")
        made = Series("new", "k2", "", LIST, "REST", "customers", "OK", "")
        wrong, other = made._replace(status="FILTER_INVALID"), made._replace(consumer_id="old")
        ids = await identify_series(connection, [made, wrong, other])
        counts = {made: UsageCounts(6, 0, 0, 0), wrong: UsageCounts(2, 2, 0, 0),
                  other: UsageCounts(50, 50, 0, 0)}  # fmt: skip
        await add_counts(connection, {(time, ids[s]): c for s, c in counts.items()})
        found = {s.metric.name: s.figure for s in (await read_scorecard(connection, 5)).metrics}
    assert (found["sync_success_rate"].value, found["sync_success_rate"].samples) == (0.75, 4)
    assert found["sync_latency"].value == pytest.approx(2.0)
    assert found["sync_latency"].samples == 2
    assert found["time_to_first_call"].value == pytest.approx(90.0)
    assert found["time_to_first_call"].samples == 1
    assert found["new_consumer_error_share"].value == 0.25
