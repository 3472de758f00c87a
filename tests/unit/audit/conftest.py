"""A PostgreSQL for all tests of the audit, and a database of its own for each."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest

from harness import folder
from penstockd.catalog.load import load_catalog
from penstockd.node.postgres import EmbeddedPostgres
from penstockd.node.sockets import sockets_folder
from penstockd.resources import descriptors
from penstockd.store.migrate import migrate

_names = (f"audit_{i}" for i in itertools.count())


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL whose database has the hub's tables, for others to be made after it."""
    with folder() as data, asyncio.Runner() as runner:
        postgres = EmbeddedPostgres(data, sockets_folder(data))
        runner.run(postgres.start())
        try:
            runner.run(migrate(postgres.dsn, load_catalog(descriptors())))
            yield postgres
        finally:
            runner.run(postgres.stop())


@pytest.fixture
async def store_url(server: EmbeddedPostgres) -> AsyncIterator[str]:
    """The URL of a database with the hub's tables."""
    name = next(_names)
    owner = await asyncpg.connect(server.dsn.replace("/penstock?", "/postgres?"))
    await owner.execute(f"CREATE DATABASE {name} TEMPLATE penstock")
    yield server.dsn.replace("/penstock?", f"/{name}?")
    await owner.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await owner.close()
