"""ListIssuers: all issuers, by id."""

from __future__ import annotations

from penstockd.auth.issuers import Issuer
from penstockd.auth.trust import load_issuers
from penstockd.calls import Call
from penstockd.hub import Hub
from penstockd.paging import Paging
from penstockd.policy.model import Permission


async def list_issuers(
    hub: Hub, call: Call, page_size: int, page_token: str
) -> tuple[list[Issuer], str]:
    """A page of issuers, and the next page's token. Raises PermissionDenied."""
    call.require(Permission.ACCESS_READ)
    paging = Paging(hub.page_tokens, call, "issuers", page_size, page_token)
    async with hub.database.connection() as connection:
        found = await load_issuers(connection, after=paging.after(""), limit=paging.limit)
    return paging.cut(found, lambda issuer: issuer.issuer_id)
