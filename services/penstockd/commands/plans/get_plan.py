"""GetPlan: one plan, with the policy revision."""

from __future__ import annotations

from penstockd.access.stored import find_plan
from penstockd.calls import Call
from penstockd.hub import Hub
from penstockd.policy.history import policy_revision
from penstockd.policy.model import Permission
from penstockd.policy.plans import Plan


async def get_plan(hub: Hub, call: Call, plan_id: str) -> tuple[Plan, int]:
    """One plan and the policy revision. Raises RecordNotFound."""
    call.require(Permission.PLANS_READ)
    call.entry.record_key = f"plans/{plan_id}"
    async with hub.database.connection() as connection:
        revision = await policy_revision(connection)
        found = await find_plan(connection, plan_id)
    call.entry.row_count = 1
    return found, revision
