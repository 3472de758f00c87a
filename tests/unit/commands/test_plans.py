"""Commands of plans."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from fake_organs import NOBODY, HubLike
from penstockd.access.changes import ChangeTerms
from penstockd.access.plan_rehearsing import RehearsalRange
from penstockd.commands.plans.compare_plan_revisions import compare_plan_revisions
from penstockd.commands.plans.create_plan import create_plan
from penstockd.commands.plans.delete_plan import delete_plan
from penstockd.commands.plans.get_limits import get_limits
from penstockd.commands.plans.get_plan import get_plan
from penstockd.commands.plans.list_plan_revisions import list_plan_revisions
from penstockd.commands.plans.list_plans import list_plans
from penstockd.commands.plans.rehearse_plan import rehearse_plan
from penstockd.commands.plans.roll_back_plans import roll_back_plans
from penstockd.commands.plans.update_plan import update_plan
from penstockd.errors import PermissionDenied, RecordExists, RecordNotFound, ValueInvalid
from penstockd.policy.errors import PlanInUse
from penstockd.policy.plan_checks import PlanDraft, QuotaDraft
from penstockd.policy.plans import ConcurrencyLimit
from penstockd.query.errors import FieldUnknown

NOW = datetime(2026, 3, 1, tzinfo=UTC)
PLAIN = ChangeTerms("because")
GOLD = {"description": "", "time_zone": "", "shadow": False, "limits": {"concurrent": {"calls": 3}}}
CONSUMER = {"title": "", "active": True, "claims": {}, "roles": [], "plan": "gold", "limits": {}}
POLICY = {"roles": {}, "consumers": {"crm": CONSUMER}, "plans": {"gold": GOLD}}


@pytest.fixture
def hub(hub: HubLike) -> HubLike:
    """The policy at revision 7, with a plan and a consumer that has it."""

    def plans(*given: Any) -> list[tuple[str, bytes]]:
        return [("gold", orjson.dumps(GOLD))] if given[0] in ("gold", "") else []

    hub.give(
        {
            "AS d WHERE d.consumer_id = c.consumer_id": [(1, 1)],
            "hub.policy_now()": [(orjson.dumps(POLICY),)],
            "JOIN hub.policy_document": [(orjson.dumps(POLICY),)],
            "FROM hub.policy_revision": [(6, NOW, "caller", "", "why", "r0")],
            "SELECT revision FROM hub.policy": [(7,)],
            "FROM hub.plan": plans,
            "FROM hub.consumer WHERE plan_id": [],
        }
    )
    return hub


async def test_list_plans(hub: HubLike) -> None:
    found, token, revision = await list_plans(hub, call := hub.call(), 0, "")
    assert ([p.plan_id for p in found], token, revision) == (["gold"], "", 7)
    assert call.entry.row_count == 1


async def test_get_plan(hub: HubLike) -> None:
    plan, revision = await get_plan(hub, call := hub.call(), "gold")
    assert (plan.limits.concurrent.calls, revision, call.entry.row_count) == (3, 7, 1)
    with pytest.raises(RecordNotFound):
        await get_plan(hub, hub.call(), "silver")


async def test_create_plan(hub: HubLike) -> None:
    with pytest.raises(RecordExists):
        await create_plan(hub, hub.call(), PlanDraft("gold"), PLAIN)
    with pytest.raises(ValueInvalid):
        await create_plan(hub, hub.call(), PlanDraft("No plan"), PLAIN)
    draft = PlanDraft("new", quotas=[QuotaDraft("calls", "day", 9)])
    made, _ = await create_plan(hub, call := hub.call(), draft, PLAIN)
    assert made.limits.quotas[0].key == "calls-per-day" and hub.database.committed == 1
    assert "plan new: added" in (call.entry.query or "") and call.recorded


async def test_update_plan(hub: HubLike) -> None:
    draft = PlanDraft("gold", "Better", shadow=True)
    made, revision = await update_plan(hub, hub.call(), draft, ["description"], PLAIN)
    assert (made.description, made.shadow, revision) == ("Better", False, 7)
    written = ("gold", "Better", "", False, '{"concurrent":{"calls":3}}')
    assert hub.asked("INSERT INTO hub.plan") == [written]
    with pytest.raises(FieldUnknown):
        await update_plan(hub, hub.call(), draft, ["plan_id"], PLAIN)


async def test_delete_plan(hub: HubLike) -> None:
    hub.give({"FROM hub.consumer WHERE plan_id": [("crm",), ("erp",)]})
    with pytest.raises(PlanInUse, match="crm, erp"):
        await delete_plan(hub, hub.call(), "gold", PLAIN)
    hub.give({"FROM hub.consumer WHERE plan_id": []})
    await delete_plan(hub, hub.call(), "gold", PLAIN)
    assert hub.asked("DELETE FROM hub.plan") == [(["gold"],)]
    with pytest.raises(RecordNotFound):
        await delete_plan(hub, hub.call(), "silver", PLAIN)


async def test_list_plan_revisions(hub: HubLike) -> None:
    found, token = await list_plan_revisions(hub, hub.call(), 0, "")
    assert ([r.comment for r in found], token) == (["why"], "")


async def test_compare_plan_revisions(hub: HubLike) -> None:
    later = {**POLICY, "plans": {"gold": GOLD | {"limits": {}}}}
    documents = iter([POLICY, later])
    hub.give({"JOIN hub.policy_document": lambda *_: [(orjson.dumps(next(documents)),)]})
    found = await compare_plan_revisions(hub, hub.call(), 5, 6)
    assert [d.text for d in found] == ["plan gold: concurrent-calls removed (3)"]


async def test_roll_back_plans(hub: HubLike) -> None:
    earlier = {**POLICY, "plans": {}, "consumers": {"crm": CONSUMER | {"plan": ""}}}
    hub.give({"JOIN hub.policy_document": [(orjson.dumps(earlier),)]})
    found, revision = await roll_back_plans(hub, hub.call(), 6, PLAIN)
    assert {d.subject for d in found} == {"plan gold", "consumer crm"} and revision == 7
    assert hub.asked("DELETE FROM hub.plan") == [(["gold"],)]


async def test_get_limits(hub: HubLike) -> None:
    own = hub.call()
    name, terms, found = await get_limits(hub, own, "")
    assert (name, terms, found) == (own.principal.consumer_id, None, [])
    with pytest.raises(RecordNotFound):
        await get_limits(hub, hub.call(), "nobody-at-all")
    with pytest.raises(PermissionDenied, match=r"plans\.read"):
        await get_limits(hub, hub.call(caller=NOBODY), own.principal.consumer_id)
    assert (await get_limits(hub, hub.call(caller=NOBODY), NOBODY))[0] == NOBODY


async def test_rehearse_plan(hub: HubLike) -> None:
    hub.give(
        {
            "hub.audit_head": [(NOW, NOW)],
            "hub.usage_level": [("minute", None), ("hour", None), ("day", None)],
        }
    )
    asked = RehearsalRange(1, (), True)
    draft = PlanDraft("gold", concurrent=ConcurrencyLimit(calls=3))
    found = await rehearse_plan(hub, call := hub.call(), draft, asked)
    assert {f.limit for f in found.findings} == {"concurrent-calls"}
    assert call.entry.row_count == len(found.findings)
    with pytest.raises(ValueInvalid, match="days"):
        await rehearse_plan(hub, hub.call(), draft, RehearsalRange(367, (), False))
    with pytest.raises(RecordNotFound):
        await rehearse_plan(hub, hub.call(), draft, RehearsalRange(1, ("nowhere",), False))
