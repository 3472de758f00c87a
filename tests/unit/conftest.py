"""Shared by unit tests: a model with every kind of field, and databases of tests and modules."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import asyncpg
import orjson
import pytest

from databases import entered, own_database
from penstockd.catalog.model import Dataset
from penstockd.node.postgres import EmbeddedPostgres
from penstockd.store.database import Database, open_database
from shelf import COLUMN_TYPES, Shelf
from worlds import plain_things


@pytest.fixture
async def database(store_url: str) -> AsyncIterator[Database]:
    """Connections to the test's own database with the hub's tables."""
    async with open_database(store_url, size=4) as database:
        yield database


@pytest.fixture(scope="module")
def module_url(server: EmbeddedPostgres) -> Iterator[str]:
    """The URL of a database that the tests of a module share, empty at first."""
    with entered(own_database(server)) as url:
        yield url


@pytest.fixture(scope="session")
def things(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The dataset that has every kind of field."""
    return plain_things(tmp_path_factory.mktemp("model"))


@pytest.fixture
async def shelf(module_url: str, things: Dataset) -> AsyncIterator[Shelf]:
    """An empty table for ``things``."""
    connection = await asyncpg.connect(module_url)
    try:
        await connection.set_type_codec(
            "jsonb",
            schema="pg_catalog",
            format="binary",
            encoder=lambda v: b"\x01" + orjson.dumps(v),
            decoder=lambda v: orjson.loads(v[1:]),
        )
        columns = ", ".join(f'"{f.path}" {COLUMN_TYPES.get(f.kind, "text")}' for f in things.fields)
        await connection.execute("DROP TABLE IF EXISTS things")
        await connection.execute(f'CREATE TABLE things ("#" integer, {columns})')
        yield Shelf(connection, things)
    finally:
        # close() waits for ever if a sink raised at the end of its stream.
        connection.terminate()
