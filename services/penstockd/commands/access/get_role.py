"""GetRole: one role, with the policy revision."""

from __future__ import annotations

from penstockd.access.stored import find_role
from penstockd.calls import Call
from penstockd.hub import Hub
from penstockd.policy.history import policy_revision
from penstockd.policy.model import Permission, Role


async def get_role(hub: Hub, call: Call, role_id: str) -> tuple[Role, int]:
    """One role and the policy revision. Raises RecordNotFound."""
    call.require(Permission.ACCESS_READ)
    call.entry.record_key = f"roles/{role_id}"
    async with hub.database.connection() as connection:
        revision = await policy_revision(connection)
        found = await find_role(connection, role_id)
    call.entry.row_count = 1
    return found, revision
