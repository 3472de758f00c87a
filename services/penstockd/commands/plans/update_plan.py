"""UpdatePlan: sets some fields of a plan."""

from __future__ import annotations

from collections.abc import Sequence

from penstockd.access.changes import ChangeTerms, change_plans, check_mask, plans_document, put_diff
from penstockd.access.masks import put_paths
from penstockd.access.stored import find_plan
from penstockd.calls import Call
from penstockd.hub import Hub
from penstockd.policy.history import PolicyChange
from penstockd.policy.model import Permission
from penstockd.policy.plan_admin import put_plan
from penstockd.policy.plan_checks import PlanDraft, checked_plan, plan_draft
from penstockd.policy.plans import Plan

#: The fields that an update may change.
FIELDS = ("description", "time_zone", "shadow", "rates", "concurrent", "quotas")


async def update_plan(
    hub: Hub, call: Call, draft: PlanDraft, mask: Sequence[str], terms: ChangeTerms
) -> tuple[Plan, int]:
    """Set a plan's fields in ``mask``. Raises RecordNotFound, FieldUnknown, ValueInvalid."""
    key = f"plans/{draft.plan_id}"
    call.require(Permission.PLANS_WRITE)
    check_mask(mask, FIELDS)

    async def update(under_way: PolicyChange) -> Plan:
        before = await find_plan(under_way.connection, draft.plan_id)
        after = checked_plan(put_paths(plan_draft(before), draft, mask), hub.catalog)
        if after != before:
            await put_plan(under_way.connection, after)
        put_diff(under_way, plans_document(before), plans_document(after))
        return after

    return await change_plans(hub.database, hub.policy, call, key, terms, update)
