"""Converts messages of plans and limits to and from the objects of the commands."""

from __future__ import annotations

from collections.abc import Iterable

from penstock.hub.v1 import limits_pb2, plans_pb2
from penstockd.policy.plan_checks import LimitsDraft, PlanDraft, QuotaDraft
from penstockd.policy.plans import ConcurrencyLimit, Plan, PlanLimits, PlanQuota, PlanRate


def plan_draft_of(message: plans_pb2.Plan) -> PlanDraft:
    """A plan from a request, unchecked."""
    return PlanDraft(
        message.plan_id,
        message.description,
        message.time_zone,
        message.shadow,
        *_limits_of(message),
    )


def limits_draft_of(message: limits_pb2.PlanLimits) -> LimitsDraft:
    """PlanLimits from a request, unchecked."""
    return LimitsDraft(*_limits_of(message))


def plan_message(plan: Plan, revision: int = 0) -> plans_pb2.Plan:
    """A plan for a reply."""
    return plans_pb2.Plan(
        plan_id=plan.plan_id,
        description=plan.description,
        time_zone=plan.time_zone,
        shadow=plan.shadow,
        rates=map(_rate_message, plan.limits.rates),
        concurrent=_concurrent_message(plan.limits.concurrent),
        quotas=map(_quota_message, plan.limits.quotas),
        policy_revision=revision,
    )


def limits_message(limits: PlanLimits) -> limits_pb2.PlanLimits | None:
    """PlanLimits for a reply; None if there are none."""
    if limits.names_nothing:
        return None
    return limits_pb2.PlanLimits(
        rates=map(_rate_message, limits.rates),
        concurrent=_concurrent_message(limits.concurrent),
        quotas=map(_quota_message, limits.quotas),
    )


def _limits_of(
    message: plans_pb2.Plan | limits_pb2.PlanLimits,
) -> tuple[list[PlanRate], ConcurrencyLimit, list[QuotaDraft]]:
    rates = [
        PlanRate(r.per_second, r.burst, r.method, r.dataset, r.unlimited) for r in message.rates
    ]
    given = message.concurrent
    return (
        rates,
        ConcurrencyLimit(given.calls, given.streams, given.exports),
        list(_read_quotas(message.quotas)),
    )


def _read_quotas(messages: Iterable[limits_pb2.Quota]) -> Iterable[QuotaDraft]:
    for q in messages:
        yield QuotaDraft(q.what, q.per, q.limit, q.soft, q.method, q.dataset, q.unlimited)


def _rate_message(rate: PlanRate) -> limits_pb2.RateLimit:
    return limits_pb2.RateLimit(
        per_second=rate.per_second,
        burst=rate.burst,
        method=rate.method,
        dataset=rate.dataset,
        unlimited=rate.unlimited,
    )


def _concurrent_message(limit: ConcurrencyLimit) -> limits_pb2.ConcurrencyLimit | None:
    if limit == ConcurrencyLimit():
        return None
    return limits_pb2.ConcurrencyLimit(
        calls=limit.calls, streams=limit.streams, exports=limit.exports
    )


def _quota_message(quota: PlanQuota) -> limits_pb2.Quota:
    return limits_pb2.Quota(
        what=quota.what,
        per=quota.per,
        limit=quota.limit,
        soft=quota.soft,
        method=quota.method,
        dataset=quota.dataset,
        unlimited=quota.unlimited,
    )
