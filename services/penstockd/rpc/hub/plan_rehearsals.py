"""Converts rehearsals of plans to messages."""

from __future__ import annotations

from penstock.hub.v1 import plans_pb2 as api
from penstockd.metering.rehearsal import PlanRehearsal
from penstockd.metering.trials import LimitFinding, RefusedTime


def rehearsal_message(found: PlanRehearsal) -> api.RehearsePlanResponse:
    """A rehearsal for a reply."""
    return api.RehearsePlanResponse(
        limits=map(_limit_message, found.findings),
        start_time=found.start,
        end_time=found.end,
        fresh_time=found.fresh,
        counted_time=found.counted,
    )


def _limit_message(finding: LimitFinding) -> api.RehearsedLimit:
    return api.RehearsedLimit(
        consumer=finding.consumer_id,
        limit=finding.limit,
        verdict=finding.verdict,
        resolution=finding.resolution or "",
        refused=finding.refused,
        refused_at_most=finding.refused_at_most,
        occurrences=finding.occurrences,
        first_time=finding.first,
        last_time=finding.last,
        near_hours=finding.near_hours,
        peak=finding.peak,
        allowed=finding.allowed,
        stretches=map(_stretch_message, finding.stretches),
        reason=finding.reason,
    )


def _stretch_message(stretch: RefusedTime) -> api.RefusedStretch:
    return api.RefusedStretch(
        start_time=stretch.start,
        end_time=stretch.end,
        used=stretch.used,
        refused=stretch.refused,
    )
