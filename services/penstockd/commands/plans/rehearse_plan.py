"""RehearsePlan: who would have been refused under a plan, on recorded usage."""

from __future__ import annotations

from penstockd.access.plan_rehearsing import DEFAULT_DAYS, RehearsalRange, list_rehearsed
from penstockd.access.rehearsal_time import rehearsal_state
from penstockd.access.usage import require_usage_of_all
from penstockd.calls import Call
from penstockd.hub import Hub
from penstockd.metering.rehearsal import PlanRehearsal, rehearse_terms
from penstockd.policy.model import Permission
from penstockd.policy.plan_checks import PlanDraft, checked_plan


async def rehearse_plan(
    hub: Hub, call: Call, draft: PlanDraft, asked: RehearsalRange
) -> PlanRehearsal:
    """What a plan would have done to consumers.

    Raises PermissionDenied, ValueInvalid, RecordNotFound and RehearsalTooLong.
    """
    call.require(Permission.PLANS_READ)
    require_usage_of_all(call)
    names, everybody = ",".join(asked.names), asked.everybody
    call.asked(plan=draft.plan_id, days=asked.days, consumers=names, all_consumers=everybody)
    asked.check()
    plan = checked_plan(draft, hub.catalog)
    await hub.policy.refresh()
    rehearsed = list_rehearsed(hub.policy.current, plan, asked)
    async with rehearsal_state(hub.database) as connection:
        found = await rehearse_terms(connection, rehearsed, asked.days or DEFAULT_DAYS)
    call.entry.row_count = len(found.findings)
    return found
