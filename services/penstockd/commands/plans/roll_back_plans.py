"""RollbackPlans: restores earlier plans."""

from __future__ import annotations

from penstockd.access.changes import ChangeTerms, change_plans, put_diff
from penstockd.calls import Call
from penstockd.hub import Hub
from penstockd.policy.difference import PolicyDifference, find_plan_differences
from penstockd.policy.history import PolicyChange, policy_now, read_revision, write_document
from penstockd.policy.plan_history import check_plans, rolled_back_plans


async def roll_back_plans(
    hub: Hub, call: Call, revision: int, terms: ChangeTerms
) -> tuple[list[PolicyDifference], int]:
    """Restore the plans of an earlier revision (see ``rolled_back_plans``) as a new revision;
    returns what changed, and that revision. Raises RecordNotFound, RollbackImpossible."""
    key = f"plans/revisions/{revision}"

    async def write(under_way: PolicyChange) -> list[PolicyDifference]:
        connection = under_way.connection
        now = await policy_now(connection)
        wanted = rolled_back_plans(now, (await read_revision(connection, revision))[1])
        check_plans(wanted, revision, hub.catalog)
        await write_document(connection, now, wanted)
        put_diff(under_way, now, wanted)
        return find_plan_differences(now, wanted)

    return await change_plans(hub.database, hub.policy, call, key, terms, write)
