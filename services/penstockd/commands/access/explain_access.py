"""Explain: what somebody may do with a dataset, and which grant decided it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from penstockd.calls import Call
from penstockd.commands.access.reach import check_reads
from penstockd.commands.access.subject import Subject, known_dataset
from penstockd.hub import Hub
from penstockd.policy.explain import Explanation, explain, record_reason
from penstockd.policy.model import Permission, Principal


@dataclass(frozen=True, slots=True)
class RecordAnswer:
    """Whether one record is visible, and the roles whose rules show it."""

    key: str
    exists: bool
    visible: bool
    roles: Sequence[str]
    reason: str


@dataclass(frozen=True, slots=True)
class Answer:
    """The explanation, whom it is about, and of which policy it is."""

    principal: Principal
    active: bool
    permissions: Sequence[Permission]
    revision: int
    explanation: Explanation
    record: RecordAnswer | None


async def explain_access(
    hub: Hub, call: Call, dataset_name: str, subject: Subject, key: str
) -> Answer:
    """What the subject may do, and if a ``key`` is given, why it sees that record or does not.

    Raises PermissionDenied (a record needs access.write: its answer is about data that the caller
    may not see), ValueInvalid, RecordNotFound for an unknown consumer or role.
    """
    call.require(Permission.ACCESS_READ)
    if key:
        call.require(Permission.ACCESS_WRITE)
    dataset = known_dataset(hub, call, dataset_name)
    call.entry.record_key = key or None
    principal, active = subject.principal(call)
    explanation = explain(call.policy, principal, dataset)
    if key:
        check_reads(call, dataset.name, [r.grant for r in explanation.rows])
    permissions = [p for p in Permission if call.policy.permits(principal, p)]
    record = await _record(hub, key, explanation) if key else None
    return Answer(principal, active, permissions, call.policy.revision, explanation, record)


async def _record(hub: Hub, key: str, explanation: Explanation) -> RecordAnswer:
    grants = [r.grant for r in explanation.rows]
    if explanation.view is None:
        return RecordAnswer(key, False, False, (), record_reason(False, True, (), explanation))
    statement = explanation.view.showing(grants)
    async with hub.database.connection() as connection:
        row = await connection.fetchrow(statement.text, *statement.arguments(key=key))
    shown = tuple(row)[1:] if row is not None else ()
    roles = [g.role for g, holds in zip(grants, shown, strict=False) if holds]
    reason = record_reason(bool(roles), row is not None, roles, explanation)
    return RecordAnswer(key, row is not None, bool(roles), roles, reason)
