"""The model, and hubs in memory."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fake_organs import FakeHub, administrator, fake_hub
from penstockd.catalog import Catalog
from penstockd.installation import read_catalog
from penstockd.policy.model import Role
from penstockd.store.tables import Tables

MakeHub = Callable[..., FakeHub]


@pytest.fixture(scope="session")
def catalog() -> Catalog:
    return read_catalog()


@pytest.fixture(scope="session")
def tables(catalog: Catalog) -> Tables:
    return Tables(catalog)


@pytest.fixture
def make_hub(catalog: Catalog, tables: Tables) -> MakeHub:
    """Makes a hub whose caller has the given roles."""

    def make(*roles: Role) -> FakeHub:
        return fake_hub(catalog, tables, *roles)

    return make


@pytest.fixture
def hub(make_hub: MakeHub) -> FakeHub:
    """A hub whose caller has all permissions, and may read no data."""
    return make_hub(administrator())
