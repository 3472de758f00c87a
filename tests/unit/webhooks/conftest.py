"""A PostgreSQL for all tests of webhooks, and a rig on a database of its own for each."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest

from harness import folder
from penstockd.catalog import Catalog
from penstockd.catalog.load import load_catalog
from penstockd.node.postgres import EmbeddedPostgres
from penstockd.node.sockets import sockets_folder
from penstockd.resources import descriptors
from penstockd.store.migrate import migrate
from webhook_rig import Receiver, Rig, receiving, rigged

_names = (f"hooks_{i}" for i in itertools.count())


@pytest.fixture(scope="session")
def catalog() -> Catalog:
    return load_catalog(descriptors())


@pytest.fixture(scope="session")
def server(catalog: Catalog) -> Iterator[EmbeddedPostgres]:
    """Its database ``penstock`` is brought to the model, to be copied."""
    with folder() as data, asyncio.Runner() as runner:
        postgres = EmbeddedPostgres(data, sockets_folder(data))
        runner.run(postgres.start())
        runner.run(migrate(postgres.dsn, catalog))
        try:
            yield postgres
        finally:
            runner.run(postgres.stop())


@pytest.fixture
async def database_url(server: EmbeddedPostgres) -> AsyncIterator[str]:
    """The URL of a database of the test's own."""
    name = next(_names)
    owner = await asyncpg.connect(server.dsn.replace("/penstock?", "/postgres?"))
    await owner.execute(f"CREATE DATABASE {name} TEMPLATE penstock")
    yield server.dsn.replace("/penstock?", f"/{name}?")
    await owner.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await owner.close()


@pytest.fixture
async def rig(database_url: str, catalog: Catalog) -> AsyncIterator[Rig]:
    async with rigged(database_url, catalog, connect_seconds=1, total_seconds=2) as made:
        yield made


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as made:
        yield made
