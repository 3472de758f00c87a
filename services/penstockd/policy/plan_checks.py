"""Checks plans and limits as written, before they are in force."""

from __future__ import annotations

import math
import zoneinfo
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from penstockd.catalog import Catalog
from penstockd.policy.checks import ViolationList
from penstockd.policy.plans import (
    LIFTED,
    ConcurrencyLimit,
    Countable,
    Plan,
    PlanLimits,
    PlanQuota,
    PlanRate,
    QuotaPeriod,
)

#: The most rates, and the most quotas, of one plan.
MAX_LIMITS: Final = 50
#: The greatest numbers: a rate that no hub reaches, and one that every reader of JSON holds.
MAX_RATE, MAX_BURST, MAX_QUOTA = 1e6, 10**7, 2**53 - 1
_LEAST_RATE = 0.001

_WHAT = {what.value: what for what in Countable}
_PER = {per.value: per for per in QuotaPeriod}


@dataclass(frozen=True, slots=True)
class QuotaDraft:
    """A quota as text, as files and requests state it."""

    what: str
    per: str
    limit: int = 0
    soft: bool = False
    method: str = ""
    dataset: str = ""
    unlimited: bool = False


@dataclass(frozen=True, slots=True)
class LimitsDraft:
    """PlanLimits as text."""

    rates: Sequence[PlanRate] = ()
    concurrent: ConcurrencyLimit = field(default_factory=ConcurrencyLimit)
    quotas: Sequence[QuotaDraft] = ()


@dataclass(frozen=True, slots=True)
class PlanDraft:
    """A plan as text."""

    plan_id: str
    description: str = ""
    time_zone: str = ""
    shadow: bool = False
    rates: Sequence[PlanRate] = ()
    concurrent: ConcurrencyLimit = field(default_factory=ConcurrencyLimit)
    quotas: Sequence[QuotaDraft] = ()


def plan_draft(plan: Plan) -> PlanDraft:
    """A plan as the draft that ``checked_plan`` reads."""
    limits = limits_draft(plan.limits)
    return PlanDraft(
        plan.plan_id,
        plan.description,
        plan.time_zone,
        plan.shadow,
        limits.rates,
        limits.concurrent,
        limits.quotas,
    )


def limits_draft(limits: PlanLimits) -> LimitsDraft:
    """PlanLimits as the draft that ``checked_limits`` reads."""
    quotas = [
        QuotaDraft(q.what, q.per, q.limit, q.soft, q.method, q.dataset, q.unlimited)
        for q in limits.quotas
    ]
    return LimitsDraft(limits.rates, limits.concurrent, quotas)


def checked_plan(draft: PlanDraft, catalog: Catalog, place: str = "plan.") -> Plan:
    """The plan of a draft. Raises ValueInvalid with a violation for every fault in it."""
    check = ViolationList(place)
    check.identifier("plan_id", draft.plan_id)
    check.text("description", draft.description)
    if draft.time_zone and not _is_zone(draft.time_zone):
        check.add("time_zone", "is not a time zone such as Europe/Berlin")
    given = LimitsDraft(draft.rates, draft.concurrent, draft.quotas)
    limits = _LimitsCheck(check, catalog, of_plan=True).read(given)
    check.finish(f"plan '{draft.plan_id}' cannot be applied")
    return Plan(draft.plan_id, draft.description, draft.time_zone, draft.shadow, limits)


def checked_limits(
    draft: LimitsDraft, catalog: Catalog, place: str = "consumer.limits."
) -> PlanLimits:
    """The limits of one consumer. Raises ValueInvalid with a violation for every fault."""
    check = ViolationList(place)
    limits = _LimitsCheck(check, catalog, of_plan=False).read(draft)
    check.finish("the limits cannot be applied")
    return limits


def _is_zone(name: str) -> bool:
    try:
        zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True


class _LimitsCheck:
    """Checks limits of a plan, or of one consumer, which may also lift those of its plan."""

    def __init__(self, check: ViolationList, catalog: Catalog, *, of_plan: bool) -> None:
        self._check, self._catalog, self._of_plan = check, catalog, of_plan

    def read(self, draft: LimitsDraft) -> PlanLimits:
        """The limits of a draft, as far as they are right."""
        for name, given in (("rates", draft.rates), ("quotas", draft.quotas)):
            if len(given) > MAX_LIMITS:
                self._check.add(name, f"are more than {MAX_LIMITS}")
                return PlanLimits()
        for i, rate in enumerate(draft.rates):
            self._check_rate(f"rates[{i}].", rate)
        self._check_concurrent(draft.concurrent)
        quotas = [self._read_quota(f"quotas[{i}].", q) for i, q in enumerate(draft.quotas)]
        limits = PlanLimits(tuple(draft.rates), draft.concurrent, tuple(q for q in quotas if q))
        self._check_unique("rates", [rate.key for rate in limits.rates])
        self._check_unique("quotas", [quota.key for quota in limits.quotas])
        return limits

    def _check_rate(self, at: str, rate: PlanRate) -> None:
        self._check_reach(at, rate.method, rate.dataset)
        if self._lifts(at, rate.unlimited):
            return
        if not (math.isfinite(rate.per_second) and _LEAST_RATE <= rate.per_second <= MAX_RATE):
            self._check.add(at + "per_second", f"must be {_LEAST_RATE} to {MAX_RATE:,.0f}")
        if not 1 <= rate.burst <= MAX_BURST:
            self._check.add(at + "burst", f"must be 1 to {MAX_BURST:,}")

    def _check_concurrent(self, given: ConcurrencyLimit) -> None:
        least = 0 if self._of_plan else LIFTED
        for name in ("calls", "streams", "exports"):
            if not least <= getattr(given, name) <= MAX_BURST:
                self._check.add(f"concurrent.{name}", f"must be {least} to {MAX_BURST:,}")

    def _read_quota(self, at: str, draft: QuotaDraft) -> PlanQuota | None:
        what = self._check.one_of(at + "what", draft.what, _WHAT)
        per = self._check.one_of(at + "per", draft.per, _PER)
        self._check_reach(at, draft.method, draft.dataset)
        if not self._lifts(at, draft.unlimited) and not 0 <= draft.limit <= MAX_QUOTA:
            self._check.add(at + "limit", f"must be 0 to {MAX_QUOTA:,}")
        if what is None or per is None:
            return None
        if what is Countable.WEBHOOK_ATTEMPTS and draft.method:
            self._check.add(at + "method", "cannot be combined with webhook_attempts")
        return PlanQuota(
            what, per, draft.limit, draft.soft, draft.method, draft.dataset, draft.unlimited
        )

    def _check_reach(self, at: str, method: str, dataset: str) -> None:
        if method and dataset:
            self._check.add(at + "method", "cannot be combined with a dataset")
        if method and not _is_method(self._catalog, method):
            self._check.add(
                at + "method", f"there is no '{method}'; one is /penstock.hub.v1.Usage/ReportUsage"
            )
        if dataset and dataset not in self._catalog:
            self._check.add(at + "dataset", f"there is no dataset '{dataset}'")

    def _lifts(self, at: str, unlimited: bool) -> bool:
        if unlimited and self._of_plan:
            self._check.add(at + "unlimited", "is for the limits of one consumer only")
        return unlimited

    def _check_unique(self, name: str, keys: Sequence[str]) -> None:
        places: Mapping[str, int] = {key: i for i, key in reversed(list(enumerate(keys)))}
        for i, key in enumerate(keys):
            if places[key] != i:
                self._check.add(f"{name}[{i}]", f"is for the same as {name}[{places[key]}]: {key}")


def _is_method(catalog: Catalog, path: str) -> bool:
    service, _, name = path.removeprefix("/").partition("/")
    if not path.startswith("/") or not name:
        return False
    try:
        catalog.pool.FindMethodByName(f"{service}.{name}")
    except KeyError:
        return False
    return True
