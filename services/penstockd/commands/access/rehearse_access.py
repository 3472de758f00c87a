"""Rehearse: how another policy would affect the callers of the last days."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from penstockd.access.rehearsing import (
    TIME_LIMIT,
    RehearsalOutcome,
    draft_policy,
    rehearse_policy,
    too_long,
)
from penstockd.calls import Call
from penstockd.errors import ValueInvalid, Violation
from penstockd.hub import Hub
from penstockd.policy.checks import RoleDraft
from penstockd.policy.model import Permission
from penstockd.store.limits import StatementTooLong, statement_limit

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
    try:
        async with (
            asyncio.timeout(TIME_LIMIT),
            hub.database.snapshot() as connection,
            statement_limit(connection, TIME_LIMIT),
        ):
            now, wanted = await draft_policy(connection, hub.catalog, call, role, revision)
            policy = hub.policy.current
            outcome = await rehearse_policy(connection, policy, call, now, wanted, since)
    except (TimeoutError, StatementTooLong) as exc:
        raise too_long() from exc
    call.entry.row_count = len(outcome.effects)
    return outcome
