"""ListRoles: all roles, by id."""

from __future__ import annotations

from penstockd.calls import Call
from penstockd.hub import Hub
from penstockd.paging import Paging
from penstockd.policy.admin import read_roles
from penstockd.policy.history import policy_revision
from penstockd.policy.model import Permission, Role


async def list_roles(
    hub: Hub, call: Call, page_size: int, page_token: str
) -> tuple[list[Role], str, int]:
    """A page of roles, the token of the next page, and the policy revision."""
    call.require(Permission.ACCESS_READ)
    paging = Paging(hub.page_tokens, call, "roles", page_size, page_token)
    async with hub.database.connection() as connection:
        revision = await policy_revision(connection)
        found = await read_roles(connection, paging.after(""), paging.limit)
    return *paging.cut(found, lambda r: r.role_id), revision
