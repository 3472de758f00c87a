"""RehearsePlan: who would have been refused under a plan, on recorded usage."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from penstockd.access.usage import require_usage_of_all
from penstockd.calls import Call
from penstockd.errors import RecordNotFound, RehearsalTooLong, ValueInvalid
from penstockd.hub import Hub
from penstockd.metering.rehearsal import (
    MAX_FINDINGS,
    PlanRehearsal,
    RehearsedConsumer,
    count_limits,
    rehearse_terms,
)
from penstockd.policy.model import Consumer, Permission
from penstockd.policy.plan_checks import PlanDraft, checked_plan
from penstockd.policy.plans import Plan, terms_of
from penstockd.policy.snapshot import PolicySnapshot
from penstockd.store.limits import StatementTooLong, statement_limit

DEFAULT_DAYS, MAX_DAYS = 30, 366
#: How long a rehearsal may take in all, in seconds.
TIME_LIMIT = 20.0


async def rehearse_plan(
    hub: Hub, call: Call, draft: PlanDraft, days: int, names: Sequence[str], *, everybody: bool
) -> PlanRehearsal:
    """What a plan would have done to the consumers with these names, to all, or to those that have
    the plan of its id now.

    Raises PermissionDenied, ValueInvalid, RecordNotFound and RehearsalTooLong.
    """
    call.require(Permission.PLANS_READ)
    require_usage_of_all(call)
    call.asked(plan=draft.plan_id, days=days, consumers=",".join(names), all_consumers=everybody)
    if not 0 <= days <= MAX_DAYS:
        raise ValueInvalid.of("days", f"must be between 1 and {MAX_DAYS}")
    if names and everybody:
        raise ValueInvalid.of("consumers", "cannot be combined with all_consumers")
    plan = checked_plan(draft, hub.catalog)
    await hub.policy.refresh()
    policy = hub.policy.current
    tried = [
        _rehearse_consumer(policy, plan, consumer)
        for consumer in _find_consumers(policy, plan, names, everybody=everybody)
    ]
    if count_limits(tried) > MAX_FINDINGS:
        raise ValueInvalid.of(
            "consumers", f"have more than {MAX_FINDINGS:,} limits together; name fewer"
        )
    try:
        async with (
            asyncio.timeout(TIME_LIMIT),
            hub.database.snapshot() as connection,
            statement_limit(connection, TIME_LIMIT),
        ):
            found = await rehearse_terms(connection, tried, days or DEFAULT_DAYS)
    except (TimeoutError, StatementTooLong) as exc:
        raise RehearsalTooLong(
            f"the rehearsal took longer than {TIME_LIMIT:g} s; ask for fewer days or consumers"
        ) from exc
    call.entry.row_count = len(found.findings)
    return found


def _find_consumers(
    policy: PolicySnapshot, plan: Plan, names: Sequence[str], *, everybody: bool
) -> list[Consumer]:
    """The consumers to judge, in order of id. Raises RecordNotFound."""
    for name in names:
        if name not in policy.consumers:
            raise RecordNotFound(f"consumer '{name}' does not exist")
    return [
        consumer
        for name, consumer in sorted(policy.consumers.items())
        if everybody or (name in names if names else consumer.plan == plan.plan_id)
    ]


def _rehearse_consumer(policy: PolicySnapshot, plan: Plan, consumer: Consumer) -> RehearsedConsumer:
    terms = terms_of(plan, consumer.limits)
    assert terms is not None, "there is a plan"
    may_raise = any(
        Permission.PLANS_WRITE in policy.permissions.get(role, ()) for role in consumer.roles
    )
    return RehearsedConsumer(consumer.consumer_id, terms, may_raise)
