"""Explain: what a subject may do with a dataset, and which grant decided it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from penstockd.access.reach import check_reads
from penstockd.access.subject import Subject, find_dataset
from penstockd.calls import Call
from penstockd.hub import Hub
from penstockd.policy.explain import Explanation, RecordAnswer, explain_policy, explain_record
from penstockd.policy.model import Permission, Principal


@dataclass(frozen=True, slots=True)
class Answer:
    """The explanation, its subject, and the policy that it is based on."""

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

    Raises PermissionDenied (a ``key`` needs access.write: the answer is about data that the caller
    might not be allowed to see), ValueInvalid, RecordNotFound for an unknown consumer or role.
    """
    call.require(Permission.ACCESS_READ)
    if key:
        call.require(Permission.ACCESS_WRITE)
    dataset = find_dataset(hub.catalog, call, dataset_name)
    call.entry.record_key = key or None
    principal, active = subject.principal(call)
    explanation = explain_policy(call.policy, principal, dataset)
    if key:
        check_reads(call, dataset.name, [r.grant for r in explanation.rows])
    permissions = [p for p in Permission if call.policy.permits(principal, p)]
    record = await explain_record(hub.database, explanation, key) if key else None
    return Answer(principal, active, permissions, call.policy.revision, explanation, record)
