"""Plans: what is checked, how limits of one consumer replace those of its plan, going back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from penstockd.catalog import Catalog
from penstockd.errors import RollbackImpossible, ValueInvalid
from penstockd.policy.difference import find_plan_differences
from penstockd.policy.history import PolicyDocument, rolled_back
from penstockd.policy.model import Consumer
from penstockd.policy.plan_checks import (
    LimitsDraft,
    PlanDraft,
    QuotaDraft,
    checked_limits,
    checked_plan,
    limits_draft,
    plan_draft,
)
from penstockd.policy.plan_history import check_plans, rolled_back_plans
from penstockd.policy.plans import (
    ConcurrencyLimit,
    Countable,
    Plan,
    PlanLimits,
    PlanQuota,
    PlanRate,
    QuotaPeriod,
    terms_of,
)

LIST = "/penstock.api.v1.Customers/ListCustomers"
DAY = PlanQuota(Countable.CALLS, QuotaPeriod.DAY, 100)
MONTH = PlanQuota(Countable.RECORDS, QuotaPeriod.MONTH, 9, soft=True, dataset="customers")
GOLD = Plan(
    "gold",
    "For partners",
    "Europe/Berlin",
    limits=PlanLimits(
        (PlanRate(5, 10), PlanRate(0.5, 1, method=LIST)), ConcurrencyLimit(4), (DAY, MONTH)
    ),
)


def test_a_plan_survives_its_json(catalog: Catalog) -> None:
    assert PlanLimits.of(GOLD.limits.document) == GOLD.limits
    assert checked_plan(plan_draft(GOLD), catalog) == GOLD
    assert PlanLimits().document == {} and PlanLimits().names_nothing


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"plan_id": "No plan"}, "plan_id"),
        ({"time_zone": "Mars/Base"}, "time_zone"),
        ({"time_zone": "../../etc/passwd"}, "time_zone"),
        ({"rates": [PlanRate(0, 1)]}, "rates[0].per_second"),
        ({"rates": [PlanRate(float("nan"), 1)]}, "rates[0].per_second"),
        ({"rates": [PlanRate(1, 0)]}, "rates[0].burst"),
        ({"rates": [PlanRate(1, 1), PlanRate(2, 2)]}, "rates[1]"),
        ({"rates": [PlanRate(1, 1)] * 51}, "rates"),
        ({"rates": [PlanRate(unlimited=True)]}, "rates[0].unlimited"),
        ({"concurrent": ConcurrencyLimit(-1)}, "concurrent.calls"),
        ({"quotas": [QuotaDraft("colours", "day", 1)]}, "quotas[0].what"),
        ({"quotas": [QuotaDraft("calls", "decade", 1)]}, "quotas[0].per"),
        ({"quotas": [QuotaDraft("calls", "day", -1)]}, "quotas[0].limit"),
        ({"quotas": [QuotaDraft("calls", "day", 1, dataset="x")]}, "quotas[0].dataset"),
        ({"quotas": [QuotaDraft("calls", "day", 1, method="ListCustomers")]}, "quotas[0].method"),
        (
            {"quotas": [QuotaDraft("calls", "day", 1, method=LIST, dataset="customers")]},
            "quotas[0].method",
        ),
        ({"quotas": [QuotaDraft("calls", "day", 1), QuotaDraft("calls", "day", 2)]}, "quotas[1]"),
    ],
)
def test_a_wrong_plan_is_refused(changes: dict[str, Any], field: str, catalog: Catalog) -> None:
    with pytest.raises(ValueInvalid) as refused:
        checked_plan(replace(PlanDraft("gold"), **changes), catalog)
    assert [v.field for v in refused.value.violations] == [f"plan.{field}"]


def test_limits_of_one_consumer_replace_those_of_its_plan(catalog: Catalog) -> None:
    more = replace(DAY, limit=500)
    new = PlanQuota(Countable.BYTES, QuotaPeriod.HOUR, 7)
    own = PlanLimits(
        (PlanRate(unlimited=True),),
        ConcurrencyLimit(calls=-1, exports=2),
        (more, replace(MONTH, unlimited=True), new),
    )
    assert checked_limits(limits_draft(own), catalog) == own
    terms = terms_of(GOLD, own)
    assert terms is not None and terms.plan is GOLD
    assert [rate.key for rate in terms.limits.rates] == ["rate:Customers/ListCustomers"]
    assert terms.limits.concurrent == ConcurrencyLimit(-1, 0, 2)
    assert set(terms.limits.quotas) == {more, new}
    assert terms_of(None, PlanLimits()) is None
    alone = terms_of(None, own)
    assert alone is not None and set(alone.limits.quotas) == {more, new}
    with pytest.raises(ValueInvalid, match=r"consumer\.limits\.concurrent\.calls"):
        checked_limits(LimitsDraft(concurrent=ConcurrencyLimit(-2)), catalog)


def document(*plans: Plan, **holders: str) -> PolicyDocument:
    """Plans, and consumers with their plans."""
    consumers = {name: Consumer(name, True, frozenset(), plan=p) for name, p in holders.items()}
    return PolicyDocument({}, consumers, {plan.plan_id: plan for plan in plans})


def test_differences_are_told() -> None:
    after = replace(GOLD, shadow=True, limits=PlanLimits((PlanRate(9, 10),), quotas=(DAY,)))
    told = find_plan_differences(document(GOLD, crm=""), document(after, Plan("new"), crm="gold"))
    assert [d.text for d in told] == [
        "plan gold: rates enforced -> only counted",
        "plan gold: concurrent-calls removed (4)",
        "plan gold: rate 5/s, 10 at once -> 9/s, 10 at once",
        "plan gold: rate:Customers/ListCustomers removed (0.5/s, 1 at once)",
        "plan gold: records-per-month:customers removed (9, only counted)",
        "plan new: added",
        "consumer crm: plan added (gold)",
    ]


def test_going_back_frees_nobody(catalog: Catalog) -> None:
    """A consumer created since keeps its plan, and one that was deleted stays so."""
    silver, old = Plan("silver"), replace(GOLD, description="Earlier")
    then = document(old, crm="gold", gone="gold")
    now = document(GOLD, silver, crm="", new="silver")
    found = rolled_back_plans(now, then)
    assert dict(found.plans) == {"gold": old, "silver": silver}
    assert {name: c.plan for name, c in found.consumers.items()} == {"crm": "gold", "new": "silver"}
    # Going back in access leaves plans alone.
    found = rolled_back(now, then)
    assert found.plans == now.plans
    assert {name: c.plan for name, c in found.consumers.items()} == {
        "crm": "", "new": "silver", "gone": "gold",
    }  # fmt: skip
    unknown = Plan("x", limits=PlanLimits(quotas=(replace(DAY, dataset="dropped"),)))
    with pytest.raises(RollbackImpossible, match="dropped"):
        check_plans(document(unknown), 3, catalog)
