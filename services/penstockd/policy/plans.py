"""Plans: what consumers may use, as stored, before it is enforced."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any, Self, TypeVar

#: In place of the number of a concurrency limit: no limit, even if the plan has one.
LIFTED = -1


class Countable(enum.StrEnum):
    """What a quota counts."""

    CALLS = "calls"
    RECORDS = "records"
    BYTES = "bytes"
    WEBHOOK_ATTEMPTS = "webhook_attempts"
    IMPORT_RECORDS = "import_records"


class QuotaPeriod(enum.StrEnum):
    """The period of a quota, of the calendar in the plan's time zone."""

    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"
    MONTH = "month"


@dataclass(frozen=True, slots=True)
class PlanRate:
    """How fast calls may come. ``unlimited`` lifts the limit of a plan for one consumer."""

    per_second: float = 0.0
    burst: int = 0
    method: str = ""
    dataset: str = ""
    unlimited: bool = False
    #: Its name, unique among the limits of a consumer. Every call asks for it.
    key: str = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "key", "rate" + _name_reach(self.method, self.dataset))


@dataclass(frozen=True, slots=True)
class ConcurrencyLimit:
    """How much may be under way at one time: 0 states nothing, LIFTED lifts the plan's limit."""

    calls: int = 0
    streams: int = 0
    exports: int = 0

    def over(self, plan: ConcurrencyLimit) -> ConcurrencyLimit:
        """These numbers, and those of a plan where they state nothing."""
        return ConcurrencyLimit(
            *(getattr(self, f.name) or getattr(plan, f.name) for f in fields(self))
        )


@dataclass(frozen=True, slots=True)
class PlanQuota:
    """How much may be used in a period. A ``soft`` one only counts."""

    what: Countable
    per: QuotaPeriod
    limit: int = 0
    soft: bool = False
    method: str = ""
    dataset: str = ""
    unlimited: bool = False
    #: Its name, unique among the limits of a consumer, such as "calls-per-month".
    key: str = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        key = f"{self.what}-per-{self.per}" + _name_reach(self.method, self.dataset)
        object.__setattr__(self, "key", key)


T = TypeVar("T", PlanRate, PlanQuota)


@dataclass(frozen=True)
class PlanLimits:
    """The limits of a plan, or of one consumer in place of its plan's."""

    rates: tuple[PlanRate, ...] = ()
    concurrent: ConcurrencyLimit = field(default_factory=ConcurrencyLimit)
    quotas: tuple[PlanQuota, ...] = ()

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> Self:
        """PlanLimits from their JSON in the store or the history."""
        quotas = [
            PlanQuota(**{**q, "what": Countable(q["what"]), "per": QuotaPeriod(q["per"])})
            for q in stored.get("quotas", ())
        ]
        return cls(
            tuple(PlanRate(**rate) for rate in stored.get("rates", ())),
            ConcurrencyLimit(**stored.get("concurrent", {})),
            tuple(quotas),
        )

    @property
    def document(self) -> dict[str, Any]:
        """The limits as JSON; what states nothing is left out."""
        parts = {
            "rates": [_list_stated(rate) for rate in sorted(self.rates, key=_key_of)],
            "concurrent": _list_stated(self.concurrent),
            "quotas": [_list_stated(quota) for quota in sorted(self.quotas, key=_key_of)],
        }
        return {name: part for name, part in parts.items() if part}

    def over(self, plan: PlanLimits) -> PlanLimits:
        """These limits, and those of a plan for everything else; what is lifted is left out."""
        return PlanLimits(
            _replace_limits(plan.rates, self.rates),
            self.concurrent.over(plan.concurrent),
            _replace_limits(plan.quotas, self.quotas),
        )

    @cached_property
    def names_nothing(self) -> bool:
        """Whether there is no limit at all."""
        return not self.document


@dataclass(frozen=True, slots=True)
class Plan:
    """What the consumers that name it may use. In ``shadow`` its rates refuse nothing."""

    plan_id: str
    description: str = ""
    time_zone: str = ""
    shadow: bool = False
    limits: PlanLimits = field(default_factory=PlanLimits)


@dataclass(frozen=True, slots=True)
class Terms:
    """What one consumer may use: the limits of its plan, with its own over them."""

    plan: Plan
    limits: PlanLimits


def terms_of(plan: Plan | None, own: PlanLimits) -> Terms | None:
    """The terms of a consumer; None if nothing limits it and it has no plan."""
    if plan is None and own.names_nothing:
        return None
    plan = plan or Plan("")
    return Terms(plan, own.over(plan.limits))


def plan_of(plan_id: str, stored: Mapping[str, Any]) -> Plan:
    """A plan from its JSON in the store or the history."""
    return Plan(
        plan_id,
        stored["description"],
        stored["time_zone"],
        stored["shadow"],
        PlanLimits.of(stored["limits"]),
    )


def _name_reach(method: str, dataset: str) -> str:
    """The end of a limit's name: the one method or dataset that it counts."""
    return f":{method.rpartition('.')[2] or dataset}" if method or dataset else ""


def _key_of(limit: PlanRate | PlanQuota) -> str:
    return limit.key


def _list_stated(part: Any) -> dict[str, Any]:
    """The fields of a part that differ from their defaults."""
    values = {f.name: getattr(part, f.name) for f in fields(part) if f.init}
    return {name: value for name, value in values.items() if value}


def _replace_limits(plan: Iterable[T], own: Iterable[T]) -> tuple[T, ...]:
    """The limits of a plan by name, with those of a consumer in their place."""
    found = {limit.key: limit for limit in plan} | {limit.key: limit for limit in own}
    return tuple(limit for _, limit in sorted(found.items()) if not limit.unlimited)
