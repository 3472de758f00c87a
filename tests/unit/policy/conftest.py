"""Shared by the tests of policies: snapshots of made-up policies."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from penstockd.catalog import Catalog
from penstockd.policy.model import Consumer, Role
from penstockd.policy.snapshot import PolicySnapshot
from penstockd.store.tables import Tables

MakePolicy = Callable[..., PolicySnapshot]


@pytest.fixture(scope="session")
def tables(catalog: Catalog) -> Tables:
    return Tables(catalog)


@pytest.fixture
def policy(catalog: Catalog, tables: Tables) -> MakePolicy:
    """A snapshot of roles and of consumers, given as id -> roles, or as whole objects."""

    def make(*roles: Role, **consumers: Consumer | list[str]) -> PolicySnapshot:
        found: Mapping[str, Consumer] = {
            name: c if isinstance(c, Consumer) else Consumer(name, True, frozenset(c))
            for name, c in consumers.items()
        }
        return PolicySnapshot(
            7,
            found,
            {},
            {r.role_id: r.grants for r in roles},
            {r.role_id: r.permissions for r in roles},
            catalog,
            tables,
            b"k" * 32,
        )

    return make
