"""The partitions of the change log and of the audit, one per day."""

from __future__ import annotations

import asyncio

import structlog

from penstockd.errors import DataLocked
from penstockd.store.fences import Transactions

#: How often partitions are added, in seconds.
INTERVAL = 3600.0
#: Days ahead for which partitions exist.
PARTITION_DAYS = 3
#: The parents, each by the function that adds its partitions.
PARENTS = ("add_change_partitions", "add_audit_partitions")
#: Adding a partition locks the parent: while it waits for a reader, all writes wait behind it.
LOCK_MILLISECONDS = 500
#: Seconds until the next try if the lock was not available.
RETRY = 20.0

_log = structlog.get_logger(__name__)


async def add_partitions(database: Transactions) -> list[str]:
    """Create missing partitions for the days ahead. Raises DatabaseUnavailable.

    Returns the functions for which another session reads the parent for too long: try them again.
    Each has a transaction of its own, so that while one waits the other parent is not locked.
    """
    return [parent for parent in PARENTS if not await _add_partition(database, parent)]


async def keep_partitions(database: Transactions) -> None:
    """Add partitions every INTERVAL until cancelled. Raises DatabaseUnavailable."""
    while True:
        locked = await add_partitions(database)
        await asyncio.sleep(RETRY if locked else INTERVAL)


async def _add_partition(database: Transactions, parent: str) -> bool:
    try:
        async with database.transaction() as connection:
            await connection.execute(f"SET LOCAL lock_timeout = {LOCK_MILLISECONDS}")
            await connection.execute(f"SELECT hub.{parent}($1)", PARTITION_DAYS)
    except DataLocked:
        _log.warning("partitions_locked", function=parent, retry_seconds=RETRY)
        return False
    return True
