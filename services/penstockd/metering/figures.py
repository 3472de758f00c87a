"""The values of the scorecard in one period, each from what the hub has recorded of it.

A figure that has no value says why. None is estimated from anything else than its source.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from penstockd.answers.reasons import REASONS
from penstockd.audit.entry import DELIVERIES
from penstockd.metering.checks import sum_checks
from penstockd.metering.counting import DATASET_METHODS
from penstockd.metering.door_hours import DoorCounts, sum_door
from penstockd.metering.report import UsageQuestion, UsageRow, report_usage
from penstockd.store.database import Connection

#: More groups than methods and reasons, or new consumers, can make.
MAX_GROUPS = 200_000
#: The share of requests, and of deliveries, whose time is stated.
QUANTILE = 0.95
#: Who may be the subject of a limit that a caller exceeds.
_LIMITED = ("caller", "consumer")

_RECEIPTS = """
SELECT count(*) FILTER (WHERE state = 'COMPLETE'), count(*) FROM hub.receipt
WHERE finish_time >= $1 AND finish_time < $2 AND format <> 'CHANGES'
"""
#: Exports whose worker died: their receipts are never closed.
_LOST = """
SELECT count(*) FROM hub.receipt AS r
WHERE snapshot IS NOT NULL AND state = 'RUNNING' AND format <> 'CHANGES'
    AND start_time >= $1 AND start_time < $2 AND NOT EXISTS (
        SELECT FROM pg_stat_activity AS a
        WHERE a.pid = r.session_pid AND a.backend_start = r.session_start)
"""
_DELIVERIES = f"""
SELECT count(*), count(*) FILTER (WHERE state = 'DELIVERED'),
    count(*) FILTER (WHERE state = 'DELIVERED' AND cause = 'EVENT'),
    percentile_cont({QUANTILE}) WITHIN GROUP (
        ORDER BY greatest(extract(epoch FROM finish_time - event_time), 0)::float8)
        FILTER (WHERE state = 'DELIVERED' AND cause = 'EVENT')
FROM hub.webhook_delivery
WHERE finish_time >= $1 AND finish_time < $2 AND cause IN ('EVENT', 'REPLAY')
    AND state IN ('DELIVERED', 'DEAD')
"""
#: Consumers whose first credential was issued in the period, and the seconds from that until their
#: first successful call of a dataset; NULL for those that have made none. Uses of earlier versions
#: are known to the minute; those of an earlier consumer with the same id are left out.
_NEWCOMERS = f"""
SELECT c.consumer_id, CASE WHEN min(u.first_time) IS NOT NULL
    THEN greatest(extract(epoch FROM min(u.first_time) - c.start_time), 0)::float8 END
FROM (
    SELECT consumer_id, min(create_time) AS start_time FROM hub.credential GROUP BY 1) AS c
LEFT JOIN hub.access_use AS u
    ON u.consumer_id = c.consumer_id AND starts_with(u.method, '{DATASET_METHODS}')
    AND u.first_time >= c.start_time - interval '1 minute'
WHERE c.start_time >= $1 AND c.start_time < $2
GROUP BY c.consumer_id, c.start_time
"""


class PeriodSpan(NamedTuple):
    """From ``start``, which begins a day of UTC, to before ``end``."""

    start: dt.datetime
    end: dt.datetime


@dataclass(frozen=True, slots=True)
class Figure:
    """A value, of how many samples, up to when; None with the reason why there is none."""

    value: float | None = None
    samples: int = 0
    absent: str = ""
    fresh: dt.datetime | None = None
    #: Where it is from, if that is not the usual source of the metric.
    source: str = ""


def find_share(part: int, whole: int, what: str, fresh: dt.datetime, source: str = "") -> Figure:
    """The share of a part of the whole; ``what`` the whole counts."""
    if whole <= 0:
        return Figure(absent=f"there were no {what} in the period", source=source)
    return Figure(min(max(part / whole, 0.0), 1.0), whole, fresh=fresh, source=source)


@dataclass(slots=True)
class CallOutcomes:
    """How calls ended: in all, denied, over a limit, and through a fault of the hub."""

    calls: int = 0
    denied: int = 0
    limited: int = 0
    failed: int = 0


def fold_outcomes(rows: Iterable[UsageRow]) -> CallOutcomes:
    """Sum rows by method and status. Messages to webhooks are no calls."""
    found = CallOutcomes()
    for row in rows:
        if row.values["method"] == DELIVERIES:
            continue
        found.calls += row.counts.calls
        kind = judge_status(row.values["status"])
        if kind:
            setattr(found, kind, getattr(found, kind) + row.counts.errors)
    return found


def judge_status(status: str) -> str:
    """What a status counts as in ``CallOutcomes``, by the codes and limits of the contract; "" for
    what is neither denied, nor limited, nor a fault of the hub."""
    reason = REASONS.get(status)
    if reason is None:
        return "failed" if status == "SUPPRESSED" else ""
    if reason.status in ("UNAUTHENTICATED", "PERMISSION_DENIED"):
        return "denied"
    if reason.status == "RESOURCE_EXHAUSTED":
        return "limited" if reason.quota and reason.quota.subject in _LIMITED else ""
    return "failed" if reason.status in ("INTERNAL", "UNAVAILABLE", "UNKNOWN", "DATA_LOSS") else ""


async def read_figures(connection: Connection, span: PeriodSpan) -> Mapping[str, Figure]:
    """The figures of a period, by the name of their metric."""
    fresh: dt.datetime = await connection.fetchval("SELECT now()")
    report = await report_usage(
        connection, UsageQuestion(("method", "status"), *span), MAX_GROUPS, 0
    )
    outcomes, counted = fold_outcomes(report.rows), min(report.fresh, span.end)
    checks = await sum_checks(connection, span.start.date(), _day_after(span.end))
    door = await sum_door(connection, *span)
    calls = outcomes.calls
    return {
        "access_success_rate": find_share(calls - outcomes.denied, calls, "calls", counted),
        "usage_compliance": find_share(calls - outcomes.limited, calls, "calls", counted),
        "data_accuracy": find_share(checks.passed, checks.checks, "comparisons", counted),
        "consistency_rate": find_share(
            checks.compared - checks.differing, checks.compared, "compared records", counted
        ),
        "export_completion": await _read_exports(connection, span, fresh),
        **await _read_deliveries(connection, span, fresh),
        **await _read_newcomers(connection, span, counted),
        **rate_door(door, outcomes, counted),
    }


def _day_after(time: dt.datetime) -> dt.date:
    """The first day that begins at a time or later."""
    day = time.date()
    return day if time == dt.datetime.combine(day, dt.time(), dt.UTC) else day + dt.timedelta(1)


async def _read_exports(connection: Connection, span: PeriodSpan, fresh: dt.datetime) -> Figure:
    row = await connection.fetchrow(_RECEIPTS, *span)
    assert row is not None, "aggregates always have a row"
    lost: int = await connection.fetchval(_LOST, *span)
    return find_share(row[0], row[1] + lost, "exports that ended", fresh)


async def _read_deliveries(
    connection: Connection, span: PeriodSpan, fresh: dt.datetime
) -> Mapping[str, Figure]:
    row = await connection.fetchrow(_DELIVERIES, *span)
    assert row is not None, "aggregates always have a row"
    ended, delivered, timed, seconds = row
    latency = (
        Figure(absent="there were no delivered events in the period")
        if seconds is None
        else Figure(seconds, timed, fresh=fresh)
    )
    return {
        "sync_success_rate": find_share(delivered, ended, "deliveries that ended", fresh),
        "sync_latency": latency,
    }


async def _read_newcomers(
    connection: Connection, span: PeriodSpan, fresh: dt.datetime
) -> Mapping[str, Figure]:
    """How new consumers got on: the time until their first call, and their errors."""
    waits = {row[0]: row[1] for row in await connection.fetch(_NEWCOMERS, *span)}
    calls = errors = 0
    if waits:
        report = await report_usage(connection, UsageQuestion(("consumer",), *span), MAX_GROUPS, 0)
        own = [row.counts for row in report.rows if row.values["consumer"] in waits]
        calls, errors = sum(c.calls for c in own), sum(c.errors for c in own)
    return {
        "time_to_first_call": find_median([w for w in waits.values() if w is not None], fresh),
        "new_consumer_error_share": find_share(errors, calls, "calls of new consumers", fresh),
    }


def find_median(waits: list[float], fresh: dt.datetime) -> Figure:
    """The median of the waits of new consumers."""
    if not waits:
        return Figure(absent="no new consumer has made a successful call in the period")
    ordered, middle = sorted(waits), len(waits) // 2
    value = ordered[middle] if len(waits) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
    return Figure(value, len(waits), fresh=fresh)


def rate_door(
    door: DoorCounts, outcomes: CallOutcomes, counted: dt.datetime
) -> Mapping[str, Figure]:
    """Availability by what the sidecar answered, or by the hub's own entries without readings of
    it; response times, which the sidecar alone measures."""
    seconds = door.quantile(QUANTILE)
    if door.fresh is None or not door.requests:
        available = find_share(
            outcomes.calls - outcomes.failed, outcomes.calls, "calls", counted, "usage"
        )
        return {
            "api_availability": available,
            "response_time": Figure(absent="the sidecar was not read in the period"),
        }
    tried = door.requests + door.rejected
    good = tried - door.failures - door.rejected
    times = (
        Figure(absent="the sidecar stated no times in the period")
        if seconds is None
        else Figure(seconds / 1000, door.timed, fresh=door.fresh)
    )
    return {
        "api_availability": find_share(good, tried, "requests", door.fresh, "sidecar"),
        "response_time": times,
    }
