"""ListPlanRevisions: the history of plans."""

from __future__ import annotations

from penstockd.calls import Call
from penstockd.hub import Hub
from penstockd.paging import Paging
from penstockd.policy.history import Revision
from penstockd.policy.model import Permission
from penstockd.policy.plan_history import read_plan_revisions


async def list_plan_revisions(
    hub: Hub, call: Call, page_size: int, page_token: str
) -> tuple[list[Revision], str]:
    """A page of the history, newest first, and the token of the next page."""
    call.require(Permission.PLANS_READ)
    paging = Paging(hub.page_tokens, call, "plan revisions", page_size, page_token)
    async with hub.database.connection() as connection:
        found = await read_plan_revisions(connection, paging.after(0), paging.limit)
    return paging.cut(found, lambda r: r.revision)
