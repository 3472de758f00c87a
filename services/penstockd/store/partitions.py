"""The partitions of the change log and of the audit, one per day."""

from __future__ import annotations

import asyncio

from penstockd.store.database import Connection
from penstockd.store.singletons import Transactions

#: How often partitions are added, in seconds.
INTERVAL = 3600.0
#: Days ahead for which partitions exist.
PARTITION_DAYS = 3
_ADD_PARTITIONS = "SELECT hub.add_change_partitions($1), hub.add_audit_partitions($1)"


async def add_partitions(connection: Connection) -> None:
    """Create missing partitions for the days ahead."""
    await connection.execute(_ADD_PARTITIONS, PARTITION_DAYS)


async def keep_partitions(database: Transactions) -> None:
    """Add partitions every INTERVAL until cancelled. Raises DatabaseUnavailable."""
    while True:
        async with database.transaction() as connection:
            await add_partitions(connection)
        await asyncio.sleep(INTERVAL)
