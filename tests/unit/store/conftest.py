"""A PostgreSQL for all tests of the store, and a database of its own for each."""

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

_names = (f"test_{i}" for i in itertools.count())


@pytest.fixture(scope="session")
def catalog() -> Catalog:
    return load_catalog(descriptors())


@pytest.fixture(scope="session")
def server() -> Iterator[EmbeddedPostgres]:
    with folder() as data, asyncio.Runner() as runner:
        postgres = EmbeddedPostgres(data, sockets_folder(data))
        runner.run(postgres.start())
        try:
            yield postgres
        finally:
            runner.run(postgres.stop())


@pytest.fixture
async def url(server: EmbeddedPostgres) -> AsyncIterator[str]:
    """The URL of an empty database."""
    name = next(_names)
    owner = await asyncpg.connect(server.dsn)
    await owner.execute(f"CREATE DATABASE {name}")
    yield server.dsn.replace("/penstock?", f"/{name}?")
    await owner.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await owner.close()
