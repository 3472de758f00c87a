"""ListPolicyRevisions: the policy's history."""

from __future__ import annotations

from penstockd.calls import Call
from penstockd.hub import Hub
from penstockd.paging import Paging
from penstockd.policy.history import Revision, read_revisions
from penstockd.policy.model import Permission


async def list_revisions(
    hub: Hub, call: Call, page_size: int, page_token: str
) -> tuple[list[Revision], str]:
    """A page of the history, newest first, and the token of the next page."""
    call.require(Permission.ACCESS_READ)
    paging = Paging(hub.page_tokens, call, "revisions", page_size, page_token)
    async with hub.database.connection() as connection:
        found = await read_revisions(connection, paging.after(0), paging.limit)
    return paging.cut(found, lambda r: r.revision)
