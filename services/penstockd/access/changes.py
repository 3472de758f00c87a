"""The parts common to every change of the policy: terms, one transaction, its audit entry."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from penstockd.access.reach import check_change
from penstockd.calls import Call
from penstockd.policy.checks import check_comment
from penstockd.policy.difference import find_differences
from penstockd.policy.history import (
    Author,
    PolicyChange,
    PolicyDocument,
    open_policy_change,
    policy_now,
)
from penstockd.policy.model import Consumer, Permission, Role
from penstockd.policy.plans import Plan
from penstockd.policy.snapshot import Policy
from penstockd.query import FieldUnknown
from penstockd.store.database import Database

T = TypeVar("T")

#: The most differences that the audit entry of a change lists; the history has all of them.
TOLD = 50


@dataclass(frozen=True, slots=True)
class ChangeTerms:
    """How to make a change: why, at which revision (0: any), and whether only to validate it."""

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
    """Run ``work`` in one transaction; return its result and the policy revision that it made.

    ``key`` is the audit entry's name for what is changed; ``work`` adds the differences by
    ``put_diff``. On return, this process applies the new revision. Raises PermissionDenied,
    ValueInvalid, PolicyChanged, LastAdministrator, and what ``work`` raises.
    """
    call.require(Permission.ACCESS_WRITE)
    call.entry.record_key = key
    return await _write_change(database, policy, call, terms, work)


async def change_plans(
    database: Database,
    policy: Policy,
    call: Call,
    key: str,
    terms: ChangeTerms,
    work: Callable[[PolicyChange], Awaitable[T]],
) -> tuple[T, int]:
    """Run ``work``, which changes plans; otherwise like ``change_policy``."""
    call.require(Permission.PLANS_WRITE)
    call.entry.record_key = key
    return await _write_change(database, policy, call, terms, work)


async def _write_change(
    database: Database,
    policy: Policy,
    call: Call,
    terms: ChangeTerms,
    work: Callable[[PolicyChange], Awaitable[T]],
) -> tuple[T, int]:
    _note_terms(call, terms, {})
    check_comment(terms.comment)
    author = Author(call.principal.consumer_id, call.entry.request_id, terms.comment)

    async def write() -> tuple[T, int]:
        changing = open_policy_change(
            database, author, expected=terms.policy_revision, dry_run=terms.validate_only
        )
        async with call.writing(changing) as under_way:
            result = await _within_scopes(call, under_way, work)
            _note_terms(call, terms, under_way.told)
            if not terms.validate_only:
                await call.audit_within(under_way.connection, 1)
        if not terms.validate_only:
            await policy.refresh()
        return result, under_way.revision

    return await call.finish(write())


async def _within_scopes(
    call: Call, under_way: PolicyChange, work: Callable[[PolicyChange], Awaitable[T]]
) -> T:
    """Run ``work``. Raises PermissionDenied if it grants more than the caller's scopes allow."""
    if call.principal.scopes is None:
        return await work(under_way)
    before = await policy_now(under_way.connection)
    result = await work(under_way)
    check_change(call, before, await policy_now(under_way.connection))
    return result


def check_mask(mask: Sequence[str], fields: Sequence[str]) -> None:
    """Raise FieldUnknown for the first path of an update mask that does not begin with one of
    ``fields``."""
    for path in mask:
        if path.partition(".")[0] not in fields:
            raise FieldUnknown(path)


def put_diff(under_way: PolicyChange, before: PolicyDocument, after: PolicyDocument) -> None:
    """Write the differences to the audit entry."""
    lines = [d.text for d in find_differences(before, after)]
    under_way.told["change"] = lines[:TOLD]
    if len(lines) > TOLD:
        under_way.told["change_count"] = len(lines)


def roles_document(*roles: Role | None) -> PolicyDocument:
    """A document of roles, to pass to ``put_diff``."""
    return PolicyDocument({r.role_id: r for r in roles if r is not None}, {})


def consumers_document(*consumers: Consumer | None) -> PolicyDocument:
    """A document of consumers, to pass to ``put_diff``."""
    return PolicyDocument({}, {c.consumer_id: c for c in consumers if c is not None})


def plans_document(*plans: Plan | None) -> PolicyDocument:
    """A document of plans, to pass to ``put_diff``."""
    return PolicyDocument({}, {}, {p.plan_id: p for p in plans if p is not None})


def _note_terms(call: Call, terms: ChangeTerms, told: Mapping[str, Any]) -> None:
    call.asked(
        comment=terms.comment,
        expected_revision=terms.policy_revision,
        validate_only=terms.validate_only,
        **told,
    )
