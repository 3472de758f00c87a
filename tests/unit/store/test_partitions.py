"""Adding partitions blocks nobody, however long somebody reads a table that it must lock."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import asyncpg
import structlog

from penstockd.store.database import Database, open_database
from penstockd.store.partitions import PARENTS, PARTITION_DAYS, add_partitions


async def drop_last(url: str) -> None:
    """Drop the partitions of the last day in advance."""
    day = (datetime.now(UTC) + timedelta(days=PARTITION_DAYS)).strftime("%Y%m%d")
    connection = await asyncpg.connect(url)
    for parent in ("change", "audit_entry"):
        await connection.execute(f"DROP TABLE IF EXISTS hub.{parent}_{day}")
    await connection.close()


async def add_entry(database: Database) -> None:
    """Lock the audit as an INSERT does."""
    async with database.transaction() as connection:
        await connection.execute("LOCK TABLE hub.audit_entry IN ROW EXCLUSIVE MODE")


async def test_a_long_reader_of_the_audit_stops_neither_calls_nor_the_other_parent(
    store_url: str,
) -> None:
    async with open_database(store_url, size=4) as database:
        assert await add_partitions(database) == []
        await drop_last(store_url)
        reader = await asyncpg.connect(store_url)  # as pg_dump reads
        await reader.execute("BEGIN; LOCK TABLE hub.audit_entry IN ACCESS SHARE MODE")
        with structlog.testing.capture_logs() as logs:
            adding = asyncio.create_task(add_partitions(database))
            await add_entry(database)
            assert await adding == ["add_audit_partitions"]
        assert [e["function"] for e in logs if e["event"] == "partitions_locked"] == [PARENTS[1]]
        await reader.close()
        assert await add_partitions(database) == []
