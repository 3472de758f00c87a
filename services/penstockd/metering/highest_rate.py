"""The highest rate that any consumer may have: no ring before the hub may be tighter."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from penstockd.policy.plans import PlanRate, Terms
from penstockd.policy.snapshot import PolicySnapshot


class HighestRate(NamedTuple):
    """Calls a second and at once; ``all_limited``: whether every consumer has a rate for all its
    calls that refuses what exceeds it."""

    rate: int
    burst: int
    all_limited: bool


def find_highest_rate(policy: PolicySnapshot) -> HighestRate | None:
    """The highest rate for all calls, of the plans and of consumers' own; None without any.

    Plans that no consumer has yet count, so that a consumer may get one at any time. Those in
    shadow do not: they admit and refuse nothing.
    """
    terms = [policy.terms(name) for name, each in policy.consumers.items() if each.active]
    own = [_find_rate(each) for each in terms]
    rates = [rate for rate in own if rate is not None]
    for plan in policy.plans.values():
        if not plan.shadow:
            rates += _list_whole(plan.limits.rates)
    if not rates:
        return None
    return HighestRate(
        max(math.ceil(rate.per_second) for rate in rates),
        max(rate.burst for rate in rates),
        None not in own,
    )


def _find_rate(terms: Terms | None) -> PlanRate | None:
    """The rate that limits all calls of a consumer; None if nothing does."""
    if terms is None or terms.plan.shadow:
        return None
    return next(_list_whole(terms.limits.rates), None)


def _list_whole(rates: Iterable[PlanRate]) -> Iterator[PlanRate]:
    """The rates for all calls, not those of one method or dataset."""
    return (rate for rate in rates if not (rate.method or rate.dataset))
