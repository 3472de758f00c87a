"""DeleteRole: deletes a role that nobody has."""

from __future__ import annotations

from penstockd.access.changes import ChangeTerms, change_policy, put_diff, roles_document
from penstockd.access.stored import find_role
from penstockd.calls import Call
from penstockd.errors import RoleInUse
from penstockd.hub import Hub
from penstockd.policy.admin import list_holders, remove_roles
from penstockd.policy.history import PolicyChange


async def delete_role(hub: Hub, call: Call, role_id: str, terms: ChangeTerms) -> None:
    """Delete a role. Raises RecordNotFound, and RoleInUse, which names the role's holders."""
    key = f"roles/{role_id}"

    async def delete(under_way: PolicyChange) -> None:
        found = await find_role(under_way.connection, role_id)
        names = await list_holders(under_way.connection, role_id)
        if names:
            more = f" and {len(names) - 10} more" if len(names) > 10 else ""
            raise RoleInUse(f"role '{role_id}' is held by {', '.join(names[:10])}{more}")
        await remove_roles(under_way.connection, [role_id])
        put_diff(under_way, roles_document(found), roles_document())

    await change_policy(hub.database, hub.policy, call, key, terms, delete)
