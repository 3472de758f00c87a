"""Scopes narrow a token. They restrict what the roles allow and never extend it.

A scope is ``dataset:action``, either of which may be ``*`` (``customers:read``, ``orders:*``,
``*:read``), or a permission on the hub itself (``audit.read``). A token without scopes may do all
that its consumer's roles allow; a token with scopes may do only the part that its scopes name.
"""

from __future__ import annotations

from collections.abc import Iterable

from penstockd.catalog import Catalog
from penstockd.policy.model import Action, Permission, Role

ANY = "*"

_PERMISSIONS = frozenset(p.value for p in Permission)
_ACTIONS = frozenset(a.value for a in Action)


def is_known_scope(scope: str, catalog: Catalog) -> bool:
    """Whether the scope names a permission, or a dataset and an action, that exist."""
    if scope in _PERMISSIONS:
        return True
    dataset, _, action = scope.partition(":")
    return (dataset == ANY or dataset in catalog) and (action == ANY or action in _ACTIONS)


def actions_in(scopes: Iterable[str], dataset: str) -> frozenset[Action]:
    """The actions on a dataset that the scopes permit."""
    left: set[Action] = set()
    for scope in scopes:
        name, _, action = scope.partition(":")
        if name in (dataset, ANY):
            left.update(a for a in Action if action in (a.value, ANY))
    return frozenset(left)


def scopes_permit(scopes: frozenset[str] | None, dataset: str, action: Action) -> bool:
    """Whether scopes permit an action on a dataset; None permits everything."""
    return scopes is None or action in actions_in(scopes, dataset)


def find_excess(scopes: frozenset[str] | None, roles: Iterable[Role]) -> str:
    """The first right that the roles allow and the scopes do not permit, as a scope; else ""."""
    if scopes is None:
        return ""
    for role in roles:
        for permission in sorted(role.permissions - _named_permissions(scopes)):
            return permission.value
        for grant in role.grants:
            for action in sorted(grant.actions - actions_in(scopes, grant.dataset)):
                return f"{grant.dataset}:{action.value}"
    return ""


def _named_permissions(scopes: frozenset[str]) -> frozenset[Permission]:
    return frozenset(p for p in Permission if p.value in scopes)
