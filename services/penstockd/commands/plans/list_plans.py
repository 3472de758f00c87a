"""ListPlans: all plans, by id."""

from __future__ import annotations

from penstockd.calls import Call
from penstockd.hub import Hub
from penstockd.paging import Paging
from penstockd.policy.history import policy_revision
from penstockd.policy.model import Permission
from penstockd.policy.plan_admin import read_plans
from penstockd.policy.plans import Plan


async def list_plans(
    hub: Hub, call: Call, page_size: int, page_token: str
) -> tuple[list[Plan], str, int]:
    """A page of plans, the token of the next page, and the policy revision."""
    call.require(Permission.PLANS_READ)
    paging = Paging(hub.page_tokens, call, "plans", page_size, page_token)
    async with hub.database.connection() as connection:
        revision = await policy_revision(connection)
        found = await read_plans(connection, paging.after(""), paging.limit)
    return *paging.cut(found, lambda p: p.plan_id), revision
