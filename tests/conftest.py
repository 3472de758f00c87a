"""One hub for all tests that only call it, and one PostgreSQL server; tests that break a hub start
their own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import asyncpg
import pytest
import structlog
from hypothesis import HealthCheck, settings

import lanes
from chance import DRAWN
from databases import entered, own_database, running_postgres
from harness import RunningHub, folder
from penstockd.catalog import Catalog
from penstockd.installation import read_catalog
from penstockd.node.postgres import EmbeddedPostgres
from penstockd.store.migrate import apply_migration

# Hypothesis gets no time limits: a busy machine must not fail a test.
settings.register_profile(
    "tests",
    derandomize=not DRAWN,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("tests")


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Name files by their size: their bytes may contain the time of writing, and all xdist workers
    must use the same names."""
    return f"{argname} of {len(val)}" if isinstance(val, bytes) else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """All workers collect in the same order, which is the order of distribution."""
    if hasattr(config, "workerinput"):
        lanes.order(items)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> lanes.Lanes:
    """Whole files, and those that share a hub, go to one worker."""
    config.option.loadscopereorder = False
    return lanes.Lanes(config, log)


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Commands that run in the tests' own process configure logging; the next test has it as it
    was."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


@pytest.fixture(scope="session")
def hub() -> Iterator[RunningHub]:
    """A hub with the demo company of 300 customers. Do not stop or break it."""
    with folder() as data:
        # Tests serve the key sets of other issuers; hundreds of bad tokens are no flood here.
        environment = {"PENSTOCK_LOOPBACK_ISSUERS": "true", "PENSTOCK_RATE_LIMIT": "100000"}
        running = RunningHub(data / "hub", environment=environment)
        running.start()
        try:
            yield running
        finally:
            running.stop()


@pytest.fixture(scope="session")
def catalog() -> Catalog:
    """The hub's datasets."""
    return read_catalog()


@pytest.fixture(scope="session")
def server() -> Iterator[EmbeddedPostgres]:
    """The PostgreSQL server that all tests without a hub share."""
    with entered(running_postgres()) as server:
        yield server


@pytest.fixture(scope="session")
def template(server: EmbeddedPostgres, catalog: Catalog) -> str:
    """The name of a database with the hub's tables. Tests copy it, and never connect to it."""
    asyncio.run(apply_migration(server.dsn, catalog))
    return "penstock"


@pytest.fixture
async def empty_url(server: EmbeddedPostgres) -> AsyncIterator[str]:
    """The URL of the test's own empty database."""
    async with own_database(server) as url:
        yield url


@pytest.fixture
async def store_url(server: EmbeddedPostgres, template: str) -> AsyncIterator[str]:
    """The URL of the test's own database with the hub's tables."""
    async with own_database(server, template) as url:
        copy = await asyncpg.connect(url)
        # The hub takes a copy for another cluster: record that this database is the right one.
        await copy.execute("UPDATE hub.epoch_head SET cluster = hub.cluster()")
        await copy.execute("UPDATE hub.audit_head SET cluster = hub.cluster()")
        await copy.close()
        yield url
