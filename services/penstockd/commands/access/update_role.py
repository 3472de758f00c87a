"""UpdateRole: sets some fields of a role."""

from __future__ import annotations

from collections.abc import Sequence

from penstockd.access.changes import (
    ChangeTerms,
    change_policy,
    check_mask,
    put_diff,
    roles_document,
)
from penstockd.access.masks import put_paths
from penstockd.access.stored import find_role
from penstockd.calls import Call
from penstockd.hub import Hub
from penstockd.policy.admin import put_role
from penstockd.policy.checks import RoleDraft, checked_role, draft_of
from penstockd.policy.history import PolicyChange
from penstockd.policy.model import Permission, Role

#: The fields that an update may change.
FIELDS = ("description", "grants", "permissions")


async def update_role(
    hub: Hub, call: Call, draft: RoleDraft, mask: Sequence[str], terms: ChangeTerms
) -> tuple[Role, int]:
    """Set a role's fields in ``mask``. Raises RecordNotFound, FieldUnknown, ValueInvalid."""
    call.require(Permission.ACCESS_WRITE)
    check_mask(mask, FIELDS)
    key = f"roles/{draft.role_id}"

    async def update(under_way: PolicyChange) -> Role:
        before = await find_role(under_way.connection, draft.role_id)
        wanted = put_paths(draft_of(before), draft, mask)
        after = checked_role(wanted, hub.catalog, call.policy.tables)
        if after != before:
            await put_role(under_way.connection, after)
        put_diff(under_way, roles_document(before), roles_document(after))
        return await find_role(under_way.connection, draft.role_id)

    return await change_policy(hub.database, hub.policy, call, key, terms, update)
