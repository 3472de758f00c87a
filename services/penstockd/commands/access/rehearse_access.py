"""Rehearse: how another policy would affect the callers of the last days."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from penstockd.access.rehearsal_time import rehearsal_state
from penstockd.access.rehearsing import (
    RehearsalOutcome,
    draft_policy,
    rehearse_policy,
)
from penstockd.calls import Call
from penstockd.errors import ValueInvalid, Violation
from penstockd.hub import Hub
from penstockd.policy.checks import RoleDraft
from penstockd.policy.model import Permission

DEFAULT_DAYS = 7
MAX_DAYS = 90


async def rehearse_access(
    hub: Hub, call: Call, role: RoleDraft | None, revision: int, days: int
) -> RehearsalOutcome:
    """What a drafted role, or the policy of an earlier revision, would change.

    Raises PermissionDenied (only an administrator may count rows by a rule that it writes itself),
    ValueInvalid, RecordNotFound, RollbackImpossible, RehearsalTooLong.
    """
    call.require(Permission.ACCESS_WRITE)
    call.asked(role=role.role_id if role else "", revision=revision, days=days)
    if (role is None) == (revision == 0):
        text = "give either a role or a revision"
        raise ValueInvalid(f"role: {text}", violations=[Violation("role", text)])
    if not 0 <= days <= MAX_DAYS:
        raise ValueInvalid.of("days", f"must be between 1 and {MAX_DAYS}")
    since = datetime.now(UTC) - timedelta(days=days or DEFAULT_DAYS)
    await hub.policy.refresh()
    async with rehearsal_state(hub.database) as connection:
        now, wanted = await draft_policy(connection, hub.catalog, call, role, revision)
        policy = hub.policy.current
        outcome = await rehearse_policy(connection, policy, call, now, wanted, since)
    call.entry.row_count = len(outcome.effects)
    return outcome
