"""The scorecard: the metrics by which the mission measures itself, with targets and trends."""

from __future__ import annotations

import datetime as dt
import enum
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from penstockd.errors import ValueInvalid
from penstockd.metering.figures import Figure, PeriodSpan, read_figures
from penstockd.metering.rollups import UsageLevel
from penstockd.store.database import Connection

DEFAULT_DAYS, MAX_DAYS = 30, 366
#: Values that differ by less are the same.
_SAME = 1e-9


class Unit(enum.StrEnum):
    """What a value is: a share from 0 to 1, or a time."""

    RATIO = "RATIO"
    SECONDS = "SECONDS"


class Side(enum.StrEnum):
    """On which side of its target a value should be."""

    AT_LEAST = "AT_LEAST"
    AT_MOST = "AT_MOST"


@dataclass(frozen=True, slots=True)
class ScorecardMetric:
    """One metric. ``missing`` says why the hub has no source for it, "" if it has one."""

    name: str
    title: str
    scenario: str
    unit: Unit
    side: Side
    target: float
    source: str
    how: str
    missing: str = ""


_RATIO, _SECONDS = Unit.RATIO, Unit.SECONDS
_LEAST, _MOST = Side.AT_LEAST, Side.AT_MOST
METRICS: Sequence[ScorecardMetric] = (
    ScorecardMetric(
        "documentation_quality", "Documentation quality", "discovery",
        _RATIO, _LEAST, 1.0, "build",
        "Examples of the documentation that pass, by all of its examples.",
        "no source: builds do not record which examples of the documentation pass",
    ),
    ScorecardMetric(
        "time_to_first_call", "Time from first credential to first successful call",
        "discovery", _SECONDS, _MOST, 3600.0, "audit",
        "Of consumers whose first credential was issued in the period and that have called a"
        " dataset successfully: the median time between the two.",
    ),
    ScorecardMetric(
        "new_consumer_error_share", "Error share of new consumers", "discovery",
        _RATIO, _MOST, 0.1, "usage",
        "Of consumers whose first credential was issued in the period: their calls and streams that"
        " ended with an error, by their calls.",
    ),
    ScorecardMetric(
        "page_feedback", "Pages that helped", "discovery", _RATIO, _LEAST, 0.8, "feedback",
        "Readers who said that a page of the documentation or of an error helped them, by all who"
        " answered.",
        "no source: pages do not ask yet whether they helped",
    ),
    ScorecardMetric(
        "access_success_rate", "Access success rate", "access", _RATIO, _LEAST, 0.99, "usage",
        "Calls that were not refused for want of a valid credential or a permission, by all calls.",
    ),
    ScorecardMetric(
        "data_accuracy", "Data accuracy", "access", _RATIO, _LEAST, 0.99, "digests",
        "Comparisons of receivers' copies with the hub by digests (calls of Repair) that found no"
        " difference, by all comparisons. Receivers that compare digests themselves are not in it.",
    ),
    ScorecardMetric(
        "export_completion", "Export completion", "access", _RATIO, _LEAST, 0.99, "receipts",
        "Exports with a receipt that says COMPLETE, by all that ended: those that failed, whose"
        " client left, or whose worker died are not complete unless they were resumed.",
    ),
    ScorecardMetric(
        "sync_success_rate", "Sync success rate", "sync", _RATIO, _LEAST, 0.999, "deliveries",
        "Deliveries of events to webhooks that ended as DELIVERED, by all that ended; the others"
        " are in the list of dead letters. Ended deliveries are kept PENSTOCK_WEBHOOK_DAYS.",
    ),
    ScorecardMetric(
        "sync_latency", "Latency", "sync", _SECONDS, _MOST, 5.0, "deliveries",
        "Time from the commit of a change until a webhook had accepted it, within which 95 % of"
        " delivered events were; retries and pauses of the receiver count.",
    ),
    ScorecardMetric(
        "consistency_rate", "Consistency rate", "sync", _RATIO, _LEAST, 0.999, "digests",
        "Records that were equal in the hub and in a receiver's copy, by all records that"
        " receivers compared by digests (calls of Repair).",
    ),
    ScorecardMetric(
        "api_availability", "API availability", "management", _RATIO, _LEAST, 0.999, "sidecar",
        "Requests that the sidecar did not answer with 5xx and did not reject, by all; in hours in"
        " which keepers read it. Without such readings (source usage): calls that did not end by a"
        " fault of the hub, by all calls.",
    ),
    ScorecardMetric(
        "response_time", "Response time", "management", _SECONDS, _MOST, 0.25, "sidecar",
        "Time within which 95 % of requests were answered as clients see it, streams included,"
        " interpolated between the bounds of the sidecar's histogram; in hours in which keepers"
        " read it.",
    ),
    ScorecardMetric(
        "usage_compliance", "Usage compliance", "management", _RATIO, _LEAST, 0.99, "usage",
        "Calls that were within the limits of their caller, by all calls.",
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ScoredMetric:
    """A metric, its figure in the period, and the one in the period before."""

    metric: ScorecardMetric
    figure: Figure
    previous: Figure

    @property
    def met(self) -> bool | None:
        """Whether the value reaches the target; None without a value."""
        value = self.figure.value
        if value is None:
            return None
        target = self.metric.target
        return value >= target if self.metric.side is Side.AT_LEAST else value <= target

    @property
    def trend(self) -> str:
        """BETTER, WORSE or SAME than in the period before; "" if either has no value, or they are
        from different sources."""
        now, before = self.figure.value, self.previous.value
        if now is None or before is None or self.figure.source != self.previous.source:
            return ""
        if abs(now - before) < _SAME:
            return "SAME"
        rises = now > before
        return "BETTER" if rises is (self.metric.side is Side.AT_LEAST) else "WORSE"

    @property
    def document(self) -> dict[str, Any]:
        """Everything, with the names of the API."""
        metric, figure = self.metric, self.figure
        return {
            "metric": metric.name,
            "title": metric.title,
            "scenario": metric.scenario,
            "unit": metric.unit.value,
            "target": metric.target,
            "target_side": metric.side.value,
            "value": figure.value,
            "previous_value": self.previous.value,
            "trend": self.trend,
            "met": self.met,
            "samples": figure.samples,
            "absent_reason": figure.absent,
            "how": metric.how,
            "source": figure.source or metric.source,
            "fresh_time": figure.fresh,
        }


@dataclass(frozen=True, slots=True)
class Scorecard:
    """All metrics of a period, which ends now, beside the one before."""

    metrics: Sequence[ScoredMetric]
    previous_start: dt.datetime
    start: dt.datetime
    end: dt.datetime


async def read_scorecard(connection: Connection, days: int) -> Scorecard:
    """The scorecard of the last days of UTC, today included; 0 means DEFAULT_DAYS.

    Raises ValueInvalid.
    """
    if not 0 <= days <= MAX_DAYS:
        raise ValueInvalid.of("days", f"is not between 0 and {MAX_DAYS}")
    length = dt.timedelta(days=days or DEFAULT_DAYS)
    end: dt.datetime = await connection.fetchval("SELECT now()")
    start = UsageLevel.DAY.truncate(end.astimezone(dt.UTC)) - length + dt.timedelta(days=1)
    # Everything up to the statement counts, as in reports.
    now = await read_figures(connection, PeriodSpan(start, end + dt.timedelta(minutes=1)))
    before = await read_figures(connection, PeriodSpan(start - length, start))
    return Scorecard(score_metrics(now, before), start - length, start, end)


def score_metrics(
    now: Mapping[str, Figure], before: Mapping[str, Figure]
) -> Sequence[ScoredMetric]:
    """Every metric with its figures of both periods."""
    return [
        ScoredMetric(
            metric,
            Figure(absent=metric.missing) if metric.missing else now[metric.name],
            Figure() if metric.missing else before[metric.name],
        )
        for metric in METRICS
    ]
