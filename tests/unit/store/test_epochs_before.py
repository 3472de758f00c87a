"""Cursors and epochs from before revision 0021 keep their meaning."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import asyncpg
import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, text

from penstockd.catalog import Catalog
from penstockd.errors import CursorInvalid
from penstockd.store import migrations
from penstockd.store.cursor import Cursor, check_cursor, cursor_at, find_numbered, place_snapshot
from penstockd.store.epochs import Memory, notice_epoch
from penstockd.store.migrate import apply_migration, make_engine

#: The query that an earlier version's process sends on each new connection, and values of its
#: arguments: it remembers nothing yet, or a place of the log.
NOTICE_BEFORE = """
SELECT CASE WHEN NOT pg_is_in_recovery() THEN hub.notice_epoch($1, $2, $3) END
"""
MEMORIES_BEFORE = [(None, b"", None), (0, b"12345678", datetime.now(UTC))]

WRITE = """
SELECT set_config('penstock.revision', nextval('hub.revision')::text, false);
INSERT INTO hub.pending (row_count) VALUES (1)
"""


def upgrade_to_0020(connection: Connection) -> None:
    for schema in ("data", "hub"):
        connection.execute(text(f"CREATE SCHEMA {schema}"))
    config = Config()
    config.set_main_option("script_location", migrations.__path__[0])
    config.attributes["connection"] = connection
    command.upgrade(config, "0020")


@contextlib.asynccontextmanager
async def upgraded(url: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """A connection to a database at revision 0020."""
    engine = make_engine(url)
    async with engine.begin() as made:
        await made.run_sync(upgrade_to_0020)
    await engine.dispose()
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


async def test_what_was_given_out_before_is_good_afterwards(
    catalog: Catalog, empty_url: str
) -> None:
    async with upgraded(empty_url) as connection:
        for _ in range(3):
            await connection.execute(WRITE)
        await connection.execute("SELECT hub.stamp()")
        for _ in range(2):
            await connection.execute("SELECT hub.open_epoch('restore', true, NULL)")
        await connection.execute(WRITE)  # without a number at the time of the upgrade
        given = [await cursor_at(connection, number) for number in range(4)]
        given.append(await place_snapshot(connection))
        await connection.execute("ROLLBACK")
        forged = Cursor(given[3].epoch, 3, mark=given[2].mark)
        await apply_migration(empty_url, catalog)
        for _ in range(2):
            for cursor in given:
                await check_cursor(connection, cursor)
            with pytest.raises(CursorInvalid):
                await check_cursor(connection, forged)
            await connection.execute("SELECT hub.stamp()")
        # A change that the last one saw without a number has got one, and is found by it.
        assert list((await find_numbered(connection, given[-1])).values()) == [4]
        rows = await connection.fetch("SELECT id, previous FROM hub.epoch ORDER BY epoch")
        chain = await connection.fetchval("SELECT hub.epoch_chain()")
        assert [rows[0]["previous"], *(row["id"] for row in rows)] == chain
        assert rows[1]["previous"] == rows[0]["id"] and len(set(chain)) == 3
        assert await connection.fetchval("SELECT id FROM hub.epoch_head") == rows[1]["id"]


async def test_processes_of_before_get_no_new_connection_afterwards(
    catalog: Catalog, empty_url: str
) -> None:
    """They would not notice a failover. They take the error for an outage, and report it."""
    async with upgraded(empty_url) as connection:
        for values in MEMORIES_BEFORE:  # the negative control
            assert await connection.fetchval(NOTICE_BEFORE, *values) is not None
        await apply_migration(empty_url, catalog)
        for values in MEMORIES_BEFORE:
            with pytest.raises(asyncpg.CannotConnectNowError, match="later version"):
                await connection.fetchval(NOTICE_BEFORE, *values)
        memory = Memory()
        await notice_epoch(connection, memory)
        assert memory.epochs
