"""Cursors: what a snapshot has seen is not read again, and nothing else is left out."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstockd.catalog import Catalog
from penstockd.errors import CursorInvalid, DatabaseUnavailable
from penstockd.store.cursor import MAX_SKIPPED, Cursor, cursor_at, place_snapshot, read_after
from penstockd.store.database import Connection, Database
from penstockd.store.log import read_changes
from penstockd.store.migrate import migrate
from penstockd.store.writer import BEGIN_REVISION

_keys = (f"k{i}" for i in itertools.count())


@pytest.fixture
async def database(url: str, catalog: Catalog) -> AsyncIterator[Database]:
    await migrate(url, catalog)
    database = Database(url, size=4)
    await database.open()
    yield database
    await database.close()


async def write(database: Database, rows: int = 1) -> list[str]:
    """One transaction in the log, without a number; returns the keys of its changes."""
    keys = [next(_keys) for _ in range(rows)]
    async with database.transaction() as connection:
        await connection.execute(BEGIN_REVISION)
        for ordinal, key in enumerate(keys):
            await connection.execute(
                "INSERT INTO hub.change (ordinal, dataset, key, operation, after)"
                " VALUES ($1, 'customers', $2, 1, '')",
                ordinal,
                key,
            )
        await connection.execute("INSERT INTO hub.pending (row_count) VALUES ($1)", rows)
    return keys


async def stamp(database: Database) -> None:
    async with database.connection() as connection:
        await connection.execute("SELECT hub.stamp()")


async def cursor_now(database: Database) -> Cursor:
    async with database.connection() as connection:
        cursor = await place_snapshot(connection)
        await connection.execute("ROLLBACK")
        return cursor


async def keys_after(connection: Connection, cursor: Cursor, limit: int) -> list[str]:
    """The keys of all changes after a cursor, read ``limit`` at a time."""
    found: list[str] = []
    while True:
        changes, following = await read_after(connection, cursor, limit)
        found += [c.key for c in changes]
        if following == cursor:
            return found
        assert Cursor.parse(str(following)) == following
        cursor = following


@pytest.mark.parametrize("limit", [1, 2, 100])
async def test_what_a_snapshot_saw_without_a_number_does_not_come_again(
    database: Database, limit: int
) -> None:
    await write(database, 2)
    await stamp(database)
    seen = await write(database, 3) + await write(database)
    cursor = await cursor_now(database)
    assert (cursor.number, len(cursor.ahead)) == (2, 2)
    new = await write(database, 2)
    async with database.connection() as connection:
        assert await keys_after(connection, cursor, limit) == []  # nothing has a number yet
        await connection.execute("SELECT hub.stamp()")
        new += await write(database)
        await connection.execute("SELECT hub.stamp()")
        assert await keys_after(connection, cursor, limit) == new
        # Negative control: the number alone would give twice what the snapshot had seen.
        naive = [c.key for c in await read_changes(connection, cursor.number, 100)]
    assert set(seen) < set(naive)


async def test_a_cursor_in_the_midst_keeps_what_is_still_ahead(database: Database) -> None:
    first = await write(database)
    await stamp(database)
    async with database.connection() as connection:
        start = await cursor_at(connection, 0)
    ahead = await write(database)
    async with database.connection() as connection:
        cursor = await place_snapshot(connection)
        await connection.execute("ROLLBACK")
        later = await write(database)
        await connection.execute("SELECT hub.stamp()")
        changes, following = await read_after(connection, start, 1)
        assert [c.key for c in changes] == first
        changes, following = await read_after(connection, cursor, 1)
        assert (changes, following.ahead) == ([], ())
        assert await keys_after(connection, following, 1) == later
        assert await keys_after(connection, start, 2) == first + ahead + later


async def test_too_many_without_a_number_get_one_first(database: Database) -> None:
    for _ in range(MAX_SKIPPED + 1):
        await write(database)
    cursor = await cursor_now(database)
    assert (cursor.number, cursor.ahead) == (MAX_SKIPPED + 1, ())


async def test_a_log_that_nobody_numbers_is_no_place_to_read_from(database: Database) -> None:
    async with database.transaction() as holder:
        await holder.execute("SELECT pg_advisory_xact_lock(hashtext('penstock.sequencer'))")
        for _ in range(MAX_SKIPPED + 1):
            await write(database)
        with pytest.raises(DatabaseUnavailable):
            await cursor_now(database)


async def test_a_cursor_of_another_database_is_refused(database: Database) -> None:
    async with database.connection() as connection:
        with pytest.raises(CursorInvalid):
            await read_after(connection, Cursor("another", 0), 10)


CURSORS = st.builds(
    Cursor,
    st.text(st.sampled_from("0123456789abcdef"), min_size=12, max_size=12),
    st.integers(0, 2**63 - 1),
    st.sets(st.integers(1, 2**40), max_size=MAX_SKIPPED).map(lambda s: tuple(sorted(s))),
)


@given(CURSORS)
def test_a_cursor_is_read_as_it_was_written(cursor: Cursor) -> None:
    text = str(cursor)
    assert Cursor.parse(text) == cursor
    assert text.replace("-", "").replace("_", "").isalnum() and len(text) < 1500


@given(CURSORS, st.data())
def test_a_damaged_cursor_is_refused(cursor: Cursor, data: st.DataObject) -> None:
    text = str(cursor)
    place = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.sampled_from("abcXYZ019-_ é").filter(lambda c: c != text[place]))
    for damaged in (text[:place] + other + text[place + 1 :], text[:place], text + other, ""):
        with pytest.raises(CursorInvalid):
            Cursor.parse(damaged)
