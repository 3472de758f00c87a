"""Whom a rehearsal of a plan judges, and by which terms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from penstockd.errors import RecordNotFound, ValueInvalid
from penstockd.metering.rehearsal import MAX_FINDINGS, RehearsedConsumer, count_limits
from penstockd.policy.model import Consumer, Permission
from penstockd.policy.plans import Plan, terms_of
from penstockd.policy.snapshot import PolicySnapshot

DEFAULT_DAYS, MAX_DAYS = 30, 366


@dataclass(frozen=True, slots=True)
class RehearsalRange:
    """The last ``days``, of the consumers with these ``names``, of ``everybody``, or of those that
    have the plan now."""

    days: int
    names: Sequence[str]
    everybody: bool

    def check(self) -> None:
        """Raise ValueInvalid for what contradicts itself or asks for too much."""
        if not 0 <= self.days <= MAX_DAYS:
            raise ValueInvalid.of("days", f"must be between 1 and {MAX_DAYS}")
        if self.names and self.everybody:
            raise ValueInvalid.of("consumers", "cannot be combined with all_consumers")


def list_rehearsed(
    policy: PolicySnapshot, plan: Plan, asked: RehearsalRange
) -> list[RehearsedConsumer]:
    """The consumers to judge, in order of id. Raises RecordNotFound, and ValueInvalid for more
    limits than one rehearsal judges."""
    for name in asked.names:
        if name not in policy.consumers:
            raise RecordNotFound(f"consumer '{name}' does not exist")
    found = [
        _rehearse_consumer(policy, plan, consumer)
        for name, consumer in sorted(policy.consumers.items())
        if asked.everybody
        or (name in asked.names if asked.names else consumer.plan == plan.plan_id)
    ]
    if count_limits(found) > MAX_FINDINGS:
        raise ValueInvalid.of(
            "consumers", f"have more than {MAX_FINDINGS:,} limits together; name fewer"
        )
    return found


def _rehearse_consumer(policy: PolicySnapshot, plan: Plan, consumer: Consumer) -> RehearsedConsumer:
    terms = terms_of(plan, consumer.limits)
    assert terms is not None, "there is a plan"
    may_raise = any(
        Permission.PLANS_WRITE in policy.permissions.get(role, ()) for role in consumer.roles
    )
    return RehearsedConsumer(consumer.consumer_id, terms, may_raise)
