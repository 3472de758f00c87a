"""Scopes: what a token is narrowed to. They take away from what the roles allow, never add.

A scope is ``dataset:action``, either of which may be ``*`` (``customers:read``, ``orders:*``,
``*:read``), or a permission on the hub itself (``audit.read``). A token without scopes may all that
the roles of its consumer allow; one with scopes may what one of them names, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable

from penstockd.catalog import Catalog
from penstockd.policy.model import Action, Permission

ANY = "*"

_PERMISSIONS = frozenset(p.value for p in Permission)
_ACTIONS = frozenset(a.value for a in Action)


def known(scope: str, catalog: Catalog) -> bool:
    """Whether the scope names something that there is."""
    if scope in _PERMISSIONS:
        return True
    dataset, _, action = scope.partition(":")
    return (dataset == ANY or dataset in catalog) and (action == ANY or action in _ACTIONS)


def actions_in(scopes: Iterable[str], dataset: str) -> frozenset[Action]:
    """The actions on a dataset that the scopes leave."""
    left: set[Action] = set()
    for scope in scopes:
        name, _, action = scope.partition(":")
        if name in (dataset, ANY):
            left.update(a for a in Action if action in (a.value, ANY))
    return frozenset(left)
