"""The differences between the plans of two policies, for people to read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields

from penstockd.policy.plans import ConcurrencyLimit, Plan, PlanLimits, PlanQuota, PlanRate

#: A part of a plan, its value before and after; "" stands for absent.
PartDifference = tuple[str, str, str]


def compare_plans(before: Plan | None, after: Plan | None) -> Iterator[PartDifference]:
    """The parts in which two plans differ; None stands for no plan."""
    if before is None or after is None:
        yield "", "" if before is None else "yes", "" if after is None else "yes"
    old, new = before or Plan(""), after or Plan("")
    parts = (
        ("description", old.description, new.description),
        ("time zone", old.time_zone or "UTC", new.time_zone or "UTC"),
        ("rates", _say_mode(old), _say_mode(new)),
    )
    yield from (part for part in parts if part[1] != part[2])
    yield from compare_limits(old.limits, new.limits)


def compare_limits(before: PlanLimits, after: PlanLimits) -> Iterator[PartDifference]:
    """The limits in which two differ, by their names."""
    old, new = dict(_say_limits(before)), dict(_say_limits(after))
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            yield name, old.get(name, ""), new.get(name, "")


def _say_mode(plan: Plan) -> str:
    return "only counted" if plan.shadow else "enforced"


def _say_limits(limits: PlanLimits) -> Iterable[tuple[str, str]]:
    """Each limit by its name, as text."""
    yield from ((rate.key, _say_rate(rate)) for rate in limits.rates)
    yield from _say_concurrent(limits.concurrent)
    yield from ((quota.key, _say_quota(quota)) for quota in limits.quotas)


def _say_rate(rate: PlanRate) -> str:
    return "no limit" if rate.unlimited else f"{rate.per_second:g}/s, {rate.burst} at once"


def _say_concurrent(limit: ConcurrencyLimit) -> Iterator[tuple[str, str]]:
    stated: Mapping[str, int] = {f.name: getattr(limit, f.name) for f in fields(limit)}
    for name, number in stated.items():
        if number:
            yield f"concurrent-{name}", "no limit" if number < 0 else str(number)


def _say_quota(quota: PlanQuota) -> str:
    if quota.unlimited:
        return "no limit"
    return f"{quota.limit}, only counted" if quota.soft else str(quota.limit)
