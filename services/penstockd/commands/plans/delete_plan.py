"""DeletePlan: deletes a plan that nobody has."""

from __future__ import annotations

from penstockd.access.changes import ChangeTerms, change_plans, plans_document, put_diff
from penstockd.access.stored import find_plan
from penstockd.calls import Call
from penstockd.hub import Hub
from penstockd.policy.errors import PlanInUse
from penstockd.policy.history import PolicyChange
from penstockd.policy.plan_admin import list_plan_holders, remove_plans


async def delete_plan(hub: Hub, call: Call, plan_id: str, terms: ChangeTerms) -> None:
    """Delete a plan. Raises RecordNotFound, and PlanInUse, which names the plan's consumers."""
    key = f"plans/{plan_id}"

    async def delete(under_way: PolicyChange) -> None:
        found = await find_plan(under_way.connection, plan_id)
        names = await list_plan_holders(under_way.connection, plan_id)
        if names:
            more = f" and {len(names) - 10} more" if len(names) > 10 else ""
            raise PlanInUse(f"plan '{plan_id}' is that of {', '.join(names[:10])}{more}")
        await remove_plans(under_way.connection, [plan_id])
        put_diff(under_way, plans_document(found), plans_document())

    await change_plans(hub.database, hub.policy, call, key, terms, delete)
