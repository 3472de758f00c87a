"""Shared by the experiments: the catalog, and a PostgreSQL with the hub's tables."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from databases import running_postgres
from faults.exporting import multiply
from harness import RunningHub, folder
from penstockd.catalog import Catalog
from penstockd.catalog.load import load_catalog
from penstockd.resources import find_descriptors
from penstockd.store.migrate import apply_migration


@pytest.fixture(scope="session")
def catalog() -> Catalog:
    return load_catalog(find_descriptors())


@pytest.fixture
async def store_url(catalog: Catalog) -> AsyncIterator[str]:
    """The URL of a PostgreSQL server of the test's own that has the model's tables."""
    async with running_postgres() as postgres:
        await apply_migration(postgres.dsn, catalog)
        yield postgres.dsn


@pytest.fixture(scope="session")
def breakable() -> Iterator[RunningHub]:
    """The one hub for all experiments; see ``own_hub``."""
    with folder() as data:
        hub = RunningHub(data / "hub", customers=20)
        try:
            yield hub
        finally:
            hub.stop()


@pytest.fixture(scope="session")
def large() -> Iterator[RunningHub]:
    """The one hub for all experiments with large exports; see ``roomy``."""
    with folder() as data:
        # By default a worker runs four exports of a consumer at once; these tests need more than
        # twenty.
        many = {"PENSTOCK_WORKERS": "3", "PENSTOCK_CONNECTIONS": "96"}
        hub = RunningHub(data / "hub", customers=300, environment=many)
        try:
            hub.start()
            multiply(hub, 60)
            yield hub
        finally:
            hub.stop()


@pytest.fixture
def roomy(large: RunningHub) -> RunningHub:
    """A hub with some megabytes of customers; tests may kill its workers, nothing else."""
    large.mend()
    return large


@pytest.fixture
def own_hub(breakable: RunningHub) -> RunningHub:
    """A hub that runs and is whole, which a test may break or leave stopped; its data have no
    particular contents."""
    breakable.mend()
    return breakable
