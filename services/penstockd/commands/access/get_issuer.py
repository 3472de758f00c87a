"""GetIssuer: one issuer."""

from __future__ import annotations

from penstockd.access.stored import find_issuer
from penstockd.auth.issuers import Issuer
from penstockd.calls import Call
from penstockd.hub import Hub
from penstockd.policy.model import Permission


async def get_issuer(hub: Hub, call: Call, issuer_id: str) -> Issuer:
    """One issuer. Raises PermissionDenied without access.read, RecordNotFound."""
    call.require(Permission.ACCESS_READ)
    call.entry.record_key = issuer_id
    async with hub.database.connection() as connection:
        return await find_issuer(connection, issuer_id)
