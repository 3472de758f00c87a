"""The history of plans: the revisions of the policy that changed them, and going back to one."""

from __future__ import annotations

from dataclasses import replace

from penstockd.catalog import Catalog
from penstockd.errors import RollbackImpossible, ValueInvalid, Violation
from penstockd.policy.history import PolicyDocument, Revision
from penstockd.policy.plan_checks import checked_limits, checked_plan, limits_draft, plan_draft
from penstockd.store.database import Connection

#: The first revision that is kept has nothing before it.
_REVISIONS = """
SELECT revision, create_time, coalesce(consumer_id, ''), database_user, comment, request_id FROM (
    SELECT *, lag(plans) OVER (ORDER BY revision) AS before FROM hub.policy_revision
) AS r
WHERE plans IS DISTINCT FROM before AND ($1 = 0 OR revision < $1)
ORDER BY revision DESC LIMIT $2
"""


async def read_plan_revisions(connection: Connection, before: int, limit: int) -> list[Revision]:
    """At most ``limit`` revisions before ``before`` (0: from the newest) that changed plans, or
    which consumer has which, newest first."""
    return [Revision(*row) for row in await connection.fetch(_REVISIONS, before, limit)]


def rolled_back_plans(now: PolicyDocument, then: PolicyDocument) -> PolicyDocument:
    """The policy with earlier plans: see ``Plans.RollbackPlans`` in the API.

    A plan that a consumer created since has stays: without it, nothing would limit the consumer.
    """
    consumers = {}
    kept = dict(then.plans)
    for name, consumer in now.consumers.items():
        if (old := then.consumers.get(name)) is not None:
            consumers[name] = replace(consumer, plan=old.plan, limits=old.limits)
            continue
        consumers[name] = consumer
        if consumer.plan and consumer.plan not in kept:
            kept[consumer.plan] = now.plans[consumer.plan]
    return PolicyDocument(now.roles, consumers, dict(sorted(kept.items())))


def check_plans(document: PolicyDocument, revision: int, catalog: Catalog) -> None:
    """Raise RollbackImpossible, with everything that the model no longer has."""
    violations: list[Violation] = []
    for plan in document.plans.values():
        try:
            checked_plan(plan_draft(plan), catalog, f"plans[{plan.plan_id}].")
        except ValueInvalid as exc:
            violations += exc.violations
    for name, consumer in document.consumers.items():
        try:
            checked_limits(limits_draft(consumer.limits), catalog, f"consumers[{name}].limits.")
        except ValueInvalid as exc:
            violations += exc.violations
    if violations:
        first = violations[0]
        raise RollbackImpossible(
            f"the plans of revision {revision} cannot be applied any more: "
            f"{first.field}: {first.description}",
            violations=violations,
        )
