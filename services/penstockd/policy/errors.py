"""Errors of plans and limits; see ``penstockd.errors``."""

from __future__ import annotations

from penstockd.errors import Refused


class PlanInUse(Refused):
    """A plan that consumers have cannot be deleted."""

    reason = "PLAN_IN_USE"


class QuotaExhausted(Refused):
    """The caller has used up a quota of its plan; ``retry_after`` is when its next period
    begins. ``partial``: something smaller, or of another method or dataset, may still fit."""

    reason = "QUOTA_EXHAUSTED"
    partial = False


class AllowanceLost(Refused):
    """The process was out of reach for so long that what it had leased of a quota was taken back;
    the call was not counted, and can be repeated."""

    reason = "HUB_UNAVAILABLE"
