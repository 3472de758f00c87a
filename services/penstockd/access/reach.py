"""A token narrowed by scopes can grant nobody, not even itself, more than its scopes allow.

A consumer that may change access can give itself any role, so only scopes bound it. A token with
``access.write`` among its scopes can grant what its other scopes name, and nothing else: not by a
role, a consumer, a credential or an issuer, and not in a preview. A row filter that follows
references reveals something of the records it reaches, so the scopes must name their datasets too.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from penstockd.calls import Call
from penstockd.errors import PermissionDenied
from penstockd.policy.following import followed_datasets
from penstockd.policy.history import PolicyDocument
from penstockd.policy.model import Action, Consumer, Grant, Role
from penstockd.policy.scopes import find_excess


def check_gives(call: Call, roles: Iterable[Role]) -> None:
    """Raise PermissionDenied if roles allow something that the caller's scopes do not, or filter
    rows by records of a dataset that the scopes do not allow to read."""
    if call.principal.scopes is None:
        return
    given = list(roles)
    if right := find_excess(call.principal.scopes, given):
        raise PermissionDenied(f"your token cannot grant {right}: its scopes do not name it")
    for role in given:
        if dataset := _unread_through(call, role.grants):
            raise PermissionDenied(
                f"your token cannot grant {role.role_id}: a row filter looks at {dataset}, which "
                "its scopes do not name"
            )


def check_change(call: Call, before: PolicyDocument, after: PolicyDocument) -> None:
    """Raise PermissionDenied if a change of the policy grants more than the caller's scopes allow.

    Only what is new counts: new or changed grants and permissions of a role, and all roles of a
    consumer whose roles or claims changed or that was activated.
    """
    check_gives(call, _changed_roles(before, after))


def check_reads(call: Call, dataset: str, grants: Iterable[Grant]) -> None:
    """Raise PermissionDenied unless the caller's scopes allow reading a dataset and all datasets
    that the row filters of grants on it look at.

    For answers about records that are made through another subject's View.
    """
    unread = _unread_through(call, grants)
    if unread or not call.reaches(dataset, Action.READ):
        raise PermissionDenied(f"your token may not read {unread or dataset}")


def roles_of(document: PolicyDocument, consumer: Consumer) -> list[Role]:
    """The roles of a consumer."""
    return [document.roles[r] for r in sorted(consumer.roles) if r in document.roles]


def _unread_through(call: Call, grants: Iterable[Grant]) -> str:
    """The first dataset that row filters look at and that the caller's scopes do not allow to
    read; "" if there is none."""
    for grant in grants:
        for dataset in followed_datasets(grant, call.policy.catalog, call.policy.tables):
            if not call.reaches(dataset, Action.READ):
                return dataset
    return ""


def _changed_roles(before: PolicyDocument, after: PolicyDocument) -> Iterator[Role]:
    nothing = Role("")
    for name, role in after.roles.items():
        old = before.roles.get(name, nothing)
        grants = tuple(g for g in role.grants if g not in old.grants)
        yield Role(name, "", grants, role.permissions - old.permissions)
    for name, consumer in after.consumers.items():
        known = before.consumers.get(name)
        if known is None or _consumer_moved(known, consumer):
            yield from roles_of(after, consumer)


def _consumer_moved(before: Consumer, after: Consumer) -> bool:
    """Whether a consumer's roles or claims changed, or it was activated."""
    woken = after.active and not before.active
    return woken or before.roles != after.roles or before.claims != after.claims
