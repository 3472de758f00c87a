"""What every change of the policy has in common: terms, one transaction, its audit entry."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from penstockd.access.reach import check_change
from penstockd.calls import Call
from penstockd.policy.checks import check_comment
from penstockd.policy.difference import differences
from penstockd.policy.history import Author, PolicyChange, PolicyDocument, change, policy_now
from penstockd.policy.model import Consumer, Permission, Role
from penstockd.policy.snapshot import Policy
from penstockd.query import FieldUnknown
from penstockd.store.database import Database

T = TypeVar("T")

#: The audit entry of a change lists so many differences; the history has all.
TOLD = 50


@dataclass(frozen=True, slots=True)
class ChangeTerms:
    """How a change is to be made: why, at which revision (0: any), or not really."""

    comment: str = ""
    policy_revision: int = 0
    validate_only: bool = False


async def change_policy(
    database: Database,
    policy: Policy,
    call: Call,
    key: str,
    terms: ChangeTerms,
    work: Callable[[PolicyChange], Awaitable[T]],
) -> tuple[T, int]:
    """What ``work`` returns, done in one transaction, and the policy revision that it made.

    ``key`` names in the audit entry what is changed; ``work`` adds by ``tell`` how. This process
    works by the new revision when it returns. Raises PermissionDenied, ValueInvalid, PolicyChanged,
    LastAdministrator, and what ``work`` raises.
    """
    call.require(Permission.ACCESS_WRITE)
    call.entry.record_key = key
    _note(call, terms, {})
    check_comment(terms.comment)
    author = Author(call.principal.consumer_id, call.entry.request_id, terms.comment)

    async def write() -> tuple[T, int]:
        changing = change(
            database, author, expected=terms.policy_revision, dry_run=terms.validate_only
        )
        async with call.writing(changing) as under_way:
            result = await _within_scopes(call, under_way, work)
            _note(call, terms, under_way.told)
            if not terms.validate_only:
                await call.audit_within(under_way.connection, 1)
        if not terms.validate_only:
            await policy.refresh()
        return result, under_way.revision

    return await call.finish(write())


async def _within_scopes(
    call: Call, under_way: PolicyChange, work: Callable[[PolicyChange], Awaitable[T]]
) -> T:
    """What ``work`` returns. Raises PermissionDenied if it gives more than the caller's scopes."""
    if call.principal.scopes is None:
        return await work(under_way)
    before = await policy_now(under_way.connection)
    result = await work(under_way)
    check_change(call, before, await policy_now(under_way.connection))
    return result


def check_mask(mask: Sequence[str], fields: Sequence[str]) -> None:
    """Raise FieldUnknown for the first path of an update mask that is none of ``fields``."""
    for path in mask:
        if path not in fields:
            raise FieldUnknown(path)


def tell(under_way: PolicyChange, before: PolicyDocument, after: PolicyDocument) -> None:
    """Say in the audit entry what differs."""
    lines = [d.text for d in differences(before, after)]
    under_way.told["change"] = lines[:TOLD]
    if len(lines) > TOLD:
        under_way.told["change_count"] = len(lines)


def roles_document(*roles: Role | None) -> PolicyDocument:
    """Roles, to be told."""
    return PolicyDocument({r.role_id: r for r in roles if r is not None}, {})


def consumers_document(*consumers: Consumer | None) -> PolicyDocument:
    """Consumers, to be told."""
    return PolicyDocument({}, {c.consumer_id: c for c in consumers if c is not None})


def _note(call: Call, terms: ChangeTerms, told: Mapping[str, Any]) -> None:
    call.asked(
        comment=terms.comment,
        expected_revision=terms.policy_revision,
        validate_only=terms.validate_only,
        **told,
    )
