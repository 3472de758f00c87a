"""ListIssuers: all issuers, by id."""

from __future__ import annotations

from penstockd.auth.issuers import Issuer
from penstockd.auth.trust import load_issuers
from penstockd.calls import Call
from penstockd.hub import Hub
from penstockd.policy.model import Permission


async def list_issuers(hub: Hub, call: Call) -> list[Issuer]:
    """All issuers by id. Raises PermissionDenied without access.read."""
    call.require(Permission.ACCESS_READ)
    async with hub.database.connection() as connection:
        found = await load_issuers(connection)
    call.entry.row_count = len(found)
    return found
