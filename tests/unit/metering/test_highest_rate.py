"""The highest rate that any consumer may have."""

from __future__ import annotations

import pytest

from penstockd.metering.highest_rate import HighestRate, find_highest_rate
from penstockd.policy.model import Consumer
from penstockd.policy.plans import Plan, PlanLimits, PlanRate
from penstockd.policy.snapshot import PolicySnapshot

GOLD = Plan("gold", limits=PlanLimits((PlanRate(50, 100), PlanRate(900, 900, dataset="orders"))))
FREE = Plan("free", limits=PlanLimits((PlanRate(0.5, 300),)))
SHADOW = Plan("shadow", shadow=True, limits=PlanLimits((PlanRate(5, 5),)))
NONE = Plan("none")


def consumer(name: str, plan: str = "", *, active: bool = True, **own: object) -> Consumer:
    limits = PlanLimits((PlanRate(**own),)) if own else PlanLimits()  # type: ignore[arg-type]
    return Consumer(name, active, frozenset(), plan=plan, limits=limits)


@pytest.mark.parametrize(
    ("plans", "consumers", "found"),
    [
        ([], [consumer("a")], None),
        ([NONE], [consumer("a", "none")], None),
        ([FREE], [consumer("a", "free")], HighestRate(1, 300, True)),
        ([FREE, GOLD], [consumer("a", "free")], HighestRate(50, 300, True)),
        ([FREE, NONE], [consumer("a", "free"), consumer("b", "none")], HighestRate(1, 300, False)),
        ([FREE], [consumer("a", "free"), consumer("b", active=False)], HighestRate(1, 300, True)),
        ([SHADOW], [consumer("a", "shadow")], None),
        ([GOLD], [consumer("a", "gold", per_second=80.0, burst=7)], HighestRate(80, 100, True)),
        ([GOLD], [consumer("a", "gold", unlimited=True)], HighestRate(50, 100, False)),
    ],
)
def test_the_highest_rate(
    plans: list[Plan], consumers: list[Consumer], found: HighestRate | None
) -> None:
    policy = PolicySnapshot(
        1, {c.consumer_id: c for c in consumers}, {}, {}, {}, None, {}, b"",  # type: ignore[arg-type]
        plans={plan.plan_id: plan for plan in plans},
    )  # fmt: skip
    assert find_highest_rate(policy) == found
