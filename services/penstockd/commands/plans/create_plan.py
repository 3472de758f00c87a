"""CreatePlan: a new plan, which nobody has yet."""

from __future__ import annotations

from penstockd.access.changes import ChangeTerms, change_plans, plans_document, put_diff
from penstockd.calls import Call
from penstockd.errors import RecordExists
from penstockd.hub import Hub
from penstockd.policy.history import PolicyChange
from penstockd.policy.plan_admin import put_plan, read_plan
from penstockd.policy.plan_checks import PlanDraft, checked_plan
from penstockd.policy.plans import Plan


async def create_plan(
    hub: Hub, call: Call, draft: PlanDraft, terms: ChangeTerms
) -> tuple[Plan, int]:
    """Create a plan. Raises RecordExists, and ValueInvalid listing everything wrong with it."""
    key = f"plans/{draft.plan_id}"

    async def create(under_way: PolicyChange) -> Plan:
        plan = checked_plan(draft, hub.catalog)
        if await read_plan(under_way.connection, plan.plan_id) is not None:
            raise RecordExists(f"plan '{plan.plan_id}' exists already")
        await put_plan(under_way.connection, plan)
        put_diff(under_way, plans_document(), plans_document(plan))
        return plan

    return await change_plans(hub.database, hub.policy, call, key, terms, create)
