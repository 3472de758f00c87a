"""The records of a hub, as the log would hold them."""

from __future__ import annotations

from faults.validator import State, read_table
from harness import RunningHub
from penstockd.catalog import Catalog
from penstockd.store.database import Database


async def table_of(hub: RunningHub, catalog: Catalog) -> State:
    """All records of all datasets of a hub."""
    database = Database(hub.dsn, size=1)
    await database.open()
    try:
        async with database.connection() as connection:
            return await read_table(connection, catalog)
    finally:
        await database.close()
