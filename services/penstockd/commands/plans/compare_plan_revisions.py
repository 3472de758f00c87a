"""ComparePlanRevisions: the differences between the plans of two revisions."""

from __future__ import annotations

from penstockd.calls import Call
from penstockd.hub import Hub
from penstockd.policy.difference import PolicyDifference, find_plan_differences
from penstockd.policy.history import read_revision
from penstockd.policy.model import Permission


async def compare_plan_revisions(
    hub: Hub, call: Call, before: int, after: int
) -> list[PolicyDifference]:
    """The differences between two revisions; 0 is the one in force. Raises RecordNotFound."""
    call.require(Permission.PLANS_READ)
    call.asked(from_revision=before, to_revision=after)
    async with hub.database.connection() as connection:
        _, old = await read_revision(connection, before)
        _, new = await read_revision(connection, after)
    return find_plan_differences(old, new)
