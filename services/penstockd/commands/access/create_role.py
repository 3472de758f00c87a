"""CreateRole: a new role, which nobody has yet."""

from __future__ import annotations

from penstockd.access.changes import ChangeTerms, change_policy, put_diff, roles_document
from penstockd.access.stored import find_role
from penstockd.calls import Call
from penstockd.errors import RecordExists
from penstockd.hub import Hub
from penstockd.policy.admin import put_role, read_role
from penstockd.policy.checks import RoleDraft, checked_role
from penstockd.policy.history import PolicyChange
from penstockd.policy.model import Role


async def create_role(
    hub: Hub, call: Call, draft: RoleDraft, terms: ChangeTerms
) -> tuple[Role, int]:
    """Create a role. Raises RecordExists, and ValueInvalid listing everything wrong with it."""
    key = f"roles/{draft.role_id}"

    async def create(under_way: PolicyChange) -> Role:
        role = checked_role(draft, hub.catalog, call.policy.tables)
        if await read_role(under_way.connection, role.role_id) is not None:
            raise RecordExists(f"role '{role.role_id}' exists already")
        await put_role(under_way.connection, role)
        put_diff(under_way, roles_document(), roles_document(role))
        return await find_role(under_way.connection, role.role_id)

    return await change_policy(hub.database, hub.policy, call, key, terms, create)
