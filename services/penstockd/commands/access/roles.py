"""Roles: list, get, create, update, delete."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from penstockd.calls import Call
from penstockd.commands.access.change import Terms, changed, roles_document, tell
from penstockd.commands.access.pages import Paging
from penstockd.errors import RecordExists, RecordNotFound, RoleInUse
from penstockd.hub import Hub
from penstockd.policy.admin import holders, put_role, read_role, read_roles, remove_roles
from penstockd.policy.checks import RoleDraft, checked_role, draft_of
from penstockd.policy.history import Change, policy_revision
from penstockd.policy.model import Permission, Role
from penstockd.query import FieldUnknown
from penstockd.store.database import Connection

#: What an update may change.
FIELDS = ("description", "grants", "permissions")


async def list_roles(
    hub: Hub, call: Call, page_size: int, page_token: str
) -> tuple[list[Role], str, int]:
    """A page of roles, the token of the next, the policy revision."""
    call.require(Permission.ACCESS_READ)
    paging = Paging(hub, call, "roles", page_size, page_token)
    after = paging.position[0] if paging.position else ""
    async with hub.database.connection() as connection:
        revision = await policy_revision(connection)
        found = await read_roles(connection, after, paging.limit)
    return *paging.cut(found, lambda r: r.role_id), revision


async def get_role(hub: Hub, call: Call, role_id: str) -> tuple[Role, int]:
    """One role and the policy revision. Raises RecordNotFound."""
    call.require(Permission.ACCESS_READ)
    call.entry.record_key = f"roles/{role_id}"
    async with hub.database.connection() as connection:
        revision = await policy_revision(connection)
        found = await _found(connection, role_id)
    call.entry.row_count = 1
    return found, revision


async def create_role(hub: Hub, call: Call, draft: RoleDraft, terms: Terms) -> tuple[Role, int]:
    """Create a role. Raises RecordExists, and ValueInvalid for all that is wrong with it."""

    async def create(under_way: Change) -> Role:
        role = checked_role(draft, hub.catalog, call.policy.tables)
        if await read_role(under_way.connection, role.role_id) is not None:
            raise RecordExists(f"role '{role.role_id}' exists already")
        await put_role(under_way.connection, role)
        tell(under_way, roles_document(), roles_document(role))
        return await _found(under_way.connection, role.role_id)

    return await changed(hub, call, f"roles/{draft.role_id}", terms, create)


async def update_role(
    hub: Hub, call: Call, draft: RoleDraft, mask: Sequence[str], terms: Terms
) -> tuple[Role, int]:
    """Set what ``mask`` names of a role. Raises RecordNotFound, FieldUnknown, ValueInvalid."""

    async def update(under_way: Change) -> Role:
        before = await _found(under_way.connection, draft.role_id)
        wanted = replace(draft_of(before), **{name: getattr(draft, name) for name in mask})
        after = checked_role(wanted, hub.catalog, call.policy.tables)
        if after != before:
            await put_role(under_way.connection, after)
        tell(under_way, roles_document(before), roles_document(after))
        return await _found(under_way.connection, draft.role_id)

    call.require(Permission.ACCESS_WRITE)
    for path in mask:
        if path not in FIELDS:
            raise FieldUnknown(path)
    return await changed(hub, call, f"roles/{draft.role_id}", terms, update)


async def delete_role(hub: Hub, call: Call, role_id: str, terms: Terms) -> None:
    """Delete a role that nobody has. Raises RecordNotFound, and RoleInUse, which says who."""

    async def delete(under_way: Change) -> None:
        found = await _found(under_way.connection, role_id)
        names = await holders(under_way.connection, role_id)
        if names:
            more = f" and {len(names) - 10} more" if len(names) > 10 else ""
            raise RoleInUse(f"role '{role_id}' is held by {', '.join(names[:10])}{more}")
        await remove_roles(under_way.connection, [role_id])
        tell(under_way, roles_document(found), roles_document())

    await changed(hub, call, f"roles/{role_id}", terms, delete)


async def _found(connection: Connection, role_id: str) -> Role:
    found = await read_role(connection, role_id)
    if found is None:
        raise RecordNotFound(f"role '{role_id}' does not exist")
    return found
