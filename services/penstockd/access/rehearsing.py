"""Rehearsals of another policy, over the calls of the last days and the current rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta

from penstockd.access.reach import check_reads
from penstockd.audit.calls import read_calls
from penstockd.audit.stored_archives import find_archived
from penstockd.budget import let_others_run, run_offloaded
from penstockd.calls import Call
from penstockd.catalog import Catalog
from penstockd.errors import RehearsalTooLong
from penstockd.policy.checks import RoleDraft, checked_role
from penstockd.policy.difference import PolicyDifference, find_differences
from penstockd.policy.history import (
    PolicyDocument,
    check_document,
    policy_now,
    read_revision,
    rolled_back,
)
from penstockd.policy.rehearsal import ConsumerEffect, Rehearsal, with_document
from penstockd.policy.snapshot import PolicySnapshot
from penstockd.policy.view import View
from penstockd.store.database import Connection

#: The most different queries that a rehearsal looks at.
MAX_QUERIES = 50_000


@dataclass(frozen=True, slots=True)
class RehearsalOutcome:
    """What would change, the start of the calls looked at, and the revision compared with."""

    revision: int
    since: datetime
    effects: Sequence[ConsumerEffect]
    differences: Sequence[PolicyDifference]


async def draft_policy(
    connection: Connection, catalog: Catalog, call: Call, draft: RoleDraft | None, revision: int
) -> tuple[PolicyDocument, PolicyDocument]:
    """The current policy, and the one with a drafted role or rolled back to a revision.

    Raises ValueInvalid, RecordNotFound, RollbackImpossible.
    """
    now = await policy_now(connection)
    if draft is not None:
        role = checked_role(draft, catalog, call.policy.tables)
        return now, replace(now, roles={**now.roles, role.role_id: role})
    _, then = await read_revision(connection, revision)
    wanted = rolled_back(now, then)
    check_document(wanted, revision, catalog, call.policy.tables)
    return now, wanted


async def rehearse_policy(
    connection: Connection,
    policy: PolicySnapshot,
    call: Call,
    now: PolicyDocument,
    wanted: PolicyDocument,
    since: datetime,
) -> RehearsalOutcome:
    """What ``wanted`` would have done to calls since a time, and would do to the current rows.

    Raises RehearsalTooLong, and PermissionDenied for datasets that the caller's scopes leave out.
    """
    before = with_document(policy, now)
    # The rehearsal skips calls of archived days; the outcome says since when it looked.
    archived = await find_archived(connection, since.date(), date.max)
    if archived is not None:
        first = archived.last + timedelta(days=1)
        since = max(since, datetime.combine(first, time.min, UTC))
    # Offloaded since it makes the Views of all consumers, under both policies.
    rehearsal = await run_offloaded(Rehearsal, before, with_document(policy, wanted))
    calls = await read_calls(connection, since, rehearsal.datasets(), MAX_QUERIES + 1)
    if len(calls) > MAX_QUERIES:
        raise RehearsalTooLong(
            f"the rehearsal met more than {MAX_QUERIES} different queries; ask for fewer days"
        )
    for some in calls:
        rehearsal.add(some)
        await let_others_run()
    counted: dict[tuple[int, int], tuple[int, int, int]] = {}
    effects = rehearsal.effects
    for consumer in effects:
        for dataset in consumer.datasets.values():
            views = rehearsal.views(consumer.consumer_id, dataset.dataset)
            grants = [g for v in views if v is not None for g in v.grants]
            check_reads(call, dataset.dataset, grants)
            key = (id(views[0]), id(views[1]))
            if key not in counted:
                counted[key] = await _count_rows(connection, *views)
            dataset.rows = counted[key]
            await let_others_run()
    return RehearsalOutcome(before.revision, since, effects, find_differences(now, wanted))


async def _count_rows(
    connection: Connection, before: View | None, after: View | None
) -> tuple[int, int, int]:
    """How many rows are visible now, how many of them would be lost, and how many gained."""
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
