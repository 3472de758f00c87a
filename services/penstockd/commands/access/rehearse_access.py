"""Rehearse: what another policy would do to those who called in the last days."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from penstockd.audit.calls import read_calls
from penstockd.budget import breathe, offload
from penstockd.calls import Call
from penstockd.commands.access.reach import check_reads
from penstockd.errors import RehearsalTooLong, ValueInvalid, Violation
from penstockd.hub import Hub
from penstockd.policy.checks import RoleDraft, checked_role
from penstockd.policy.difference import Difference, differences
from penstockd.policy.history import (
    PolicyDocument,
    check_document,
    policy_now,
    read_revision,
    rolled_back,
)
from penstockd.policy.model import Permission
from penstockd.policy.rehearsal import ConsumerEffect, Rehearsal, with_document
from penstockd.policy.view import View
from penstockd.store.database import Connection
from penstockd.store.limits import StatementTooLong, statement_limit

DEFAULT_DAYS = 7
MAX_DAYS = 90
#: How long a rehearsal may take in all, in seconds.
TIME_LIMIT = 20.0
#: So many different queries are looked at.
MAX_QUERIES = 50_000


@dataclass(frozen=True, slots=True)
class Outcome:
    """What would change, since when calls were looked at, and compared with which revision."""

    revision: int
    since: datetime
    effects: Sequence[ConsumerEffect]
    differences: Sequence[Difference]


async def rehearse_access(
    hub: Hub, call: Call, role: RoleDraft | None, revision: int, days: int
) -> Outcome:
    """What a role as drafted, or the policy of an earlier revision, would change.

    Raises PermissionDenied (rows are counted by any rule that the caller writes: that takes an
    administrator), ValueInvalid, RecordNotFound, RollbackImpossible, RehearsalTooLong.
    """
    call.require(Permission.ACCESS_WRITE)
    call.asked(role=role.role_id if role else "", revision=revision, days=days)
    if (role is None) == (revision == 0):
        raise _invalid("role", "give either a role or a revision")
    if not 0 <= days <= MAX_DAYS:
        raise _invalid("days", f"must be between 1 and {MAX_DAYS}")
    since = datetime.now(UTC) - timedelta(days=days or DEFAULT_DAYS)
    await hub.policy.refresh()
    try:
        async with (
            asyncio.timeout(TIME_LIMIT),
            hub.database.snapshot() as connection,
            statement_limit(connection, TIME_LIMIT),
        ):
            return await _rehearse(hub, call, connection, role, revision, since)
    except (TimeoutError, StatementTooLong) as exc:
        raise _too_long() from exc


async def _rehearse(
    hub: Hub,
    call: Call,
    connection: Connection,
    draft: RoleDraft | None,
    revision: int,
    since: datetime,
) -> Outcome:
    now = await policy_now(connection)
    wanted = await _wanted(hub, call, connection, now, draft, revision)
    before = with_document(hub.policy.current, now)
    # It makes the Views of all consumers, under both policies.
    rehearsal = await offload(Rehearsal, before, with_document(hub.policy.current, wanted))
    calls = await read_calls(connection, since, rehearsal.datasets(), MAX_QUERIES + 1)
    if len(calls) > MAX_QUERIES:
        raise _too_long()
    for some in calls:
        rehearsal.add(some)
        await breathe()
    counted: dict[tuple[int, int], tuple[int, int, int]] = {}
    effects = rehearsal.effects
    for consumer in effects:
        for dataset in consumer.datasets.values():
            views = rehearsal.views(consumer.consumer_id, dataset.dataset)
            grants = [g for v in views if v is not None for g in v.grants]
            check_reads(call, dataset.dataset, grants)
            key = (id(views[0]), id(views[1]))
            if key not in counted:
                counted[key] = await _rows(connection, *views)
            dataset.rows = counted[key]
            await breathe()
    call.entry.row_count = len(effects)
    return Outcome(before.revision, since, effects, differences(now, wanted))


async def _wanted(
    hub: Hub,
    call: Call,
    connection: Connection,
    now: PolicyDocument,
    draft: RoleDraft | None,
    revision: int,
) -> PolicyDocument:
    if draft is not None:
        role = checked_role(draft, hub.catalog, call.policy.tables)
        return replace(now, roles={**now.roles, role.role_id: role})
    _, then = await read_revision(connection, revision)
    wanted = rolled_back(now, then)
    check_document(wanted, revision, hub.catalog, call.policy.tables)
    return wanted


async def _rows(
    connection: Connection, before: View | None, after: View | None
) -> tuple[int, int, int]:
    """Rows visible now, of them lost, and gained."""
    if before is None and after is None:
        return 0, 0, 0
    one, other = (before or after), (after or before)
    assert one is not None and other is not None
    statement = one.compared(other)
    row = await connection.fetchrow(statement.text, *statement.arguments())
    assert row is not None, "an aggregate has one row"
    visible, lost, gained = tuple(row)
    if before is None:
        return 0, 0, visible
    return visible, visible if after is None else lost, gained


def _too_long() -> RehearsalTooLong:
    return RehearsalTooLong(
        f"the rehearsal took longer than {TIME_LIMIT:g} s or met more than {MAX_QUERIES} different "
        "queries; ask for fewer days"
    )


def _invalid(field: str, description: str) -> ValueInvalid:
    return ValueInvalid(f"{field}: {description}", violations=[Violation(field, description)])
