"""Cursors: changes that a snapshot has seen are not read again, and no other is left out."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstockd.errors import CursorInvalid, DatabaseUnavailable
from penstockd.store.cursor import (
    MAX_SKIPPED,
    Ahead,
    Cursor,
    check_cursor,
    cursor_at,
    place_snapshot,
    read_after,
    scope_of,
)
from penstockd.store.database import Connection, Database
from penstockd.store.log import read_changes
from penstockd.store.writer import BEGIN_REVISION

_keys = (f"k{i}" for i in itertools.count())


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
        assert Cursor.parse(following.stored) == following
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
        # Negative control: the number alone would deliver the snapshot's changes twice.
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


async def go_back(database: Database, cursor: Cursor) -> None:
    """Return the log to its state at a cursor: later transactions are undone, and those without a
    number at that time are gone."""
    async with database.transaction() as connection:
        await connection.execute("DELETE FROM hub.pending")
        await connection.execute(
            "DELETE FROM hub.change AS c USING hub.log_transaction AS t"
            " WHERE c.revision = t.revision AND t.last_number > $1",
            cursor.number,
        )
        await connection.execute(
            "DELETE FROM hub.log_transaction WHERE last_number > $1", cursor.number
        )
        await connection.execute(
            "UPDATE hub.log_head SET last_number = $1, mark = $2", cursor.number, cursor.mark
        )


async def test_cursors_of_what_was_undone_are_refused_for_ever(database: Database) -> None:
    await write(database, 3)
    await stamp(database)
    fork = await cursor_now(database)
    for _ in range(3):
        await write(database, 2)
        await stamp(database)
    async with database.connection() as connection:
        lost = [await cursor_at(connection, number) for number in range(4, 10)]
        told = Cursor(fork.epoch, 5, (), ("customers", "k"), lost[2].mark)
    await write(database)
    unnumbered = await cursor_now(database)
    await go_back(database, fork)
    naive = []
    for _ in range(8):
        async with database.connection() as connection:
            for number in range(4):
                await check_cursor(
                    connection, Cursor.parse((await cursor_at(connection, number)).stored)
                )
            await check_cursor(connection, fork)
            for cursor in (*lost, told, unnumbered):
                with pytest.raises(CursorInvalid) as refused:
                    await check_cursor(connection, cursor)
                assert refused.value.metadata == {"reconcile": "REPAIR"}
            head = (await cursor_now(database)).number
            naive += [c for c in lost if c.number <= head]
        await write(database)
        await stamp(database)
    # Negative control: by epoch and number alone, each of them would be accepted in the end.
    assert set(naive) == set(lost)


async def test_what_is_numbered_again_behind_others_has_another_mark(database: Database) -> None:
    """A commit that exists before and after the return, but is numbered only after it."""
    await write(database)
    await stamp(database)
    fork = await cursor_now(database)
    await write(database, 2)
    async with database.connection() as connection:
        await connection.execute("CREATE TABLE kept_pending AS TABLE hub.pending")
        await connection.execute("CREATE TABLE kept_change AS TABLE hub.change")
        await connection.execute("SELECT hub.stamp()")
        lost = await cursor_at(connection, 3)
    await go_back(database, fork)
    hidden = await write(database)  # it takes its place first, and commits later
    async with database.connection() as connection:
        await connection.execute("UPDATE hub.pending SET row_count = 1")
        await connection.execute(
            "INSERT INTO hub.pending (seq, revision, day, row_count, write_time, mark)"
            " OVERRIDING SYSTEM VALUE SELECT (SELECT max(seq) + 1 FROM hub.pending), revision, day,"
            " row_count, write_time, mark FROM kept_pending"
        )
        await connection.execute(
            "INSERT INTO hub.change SELECT * FROM kept_change"
            " WHERE revision IN (SELECT revision FROM kept_pending)"
        )
        await connection.execute("SELECT hub.stamp()")
        # Negative control: number 3 again belongs to the same transaction, with the same first
        # mark.
        row = await connection.fetchrow(
            "SELECT first_number, last_number, written_mark = (SELECT mark FROM kept_pending)"
            " FROM hub.log_transaction WHERE last_number >= 3"
        )
        assert row is not None and tuple(row) == (3, 4, True)
        with pytest.raises(CursorInvalid):
            await check_cursor(connection, lost)
        assert hidden[0] in await keys_after(connection, fork, 10)


async def test_what_a_snapshot_saw_and_was_undone_is_missed(database: Database) -> None:
    await write(database)
    await stamp(database)
    fork = await cursor_now(database)
    await write(database)
    cursor = await cursor_now(database)
    assert (cursor.number, len(cursor.ahead)) == (1, 1)
    await go_back(database, fork)
    async with database.connection() as connection:
        # The new future gives the same revision out again.
        await connection.execute("SELECT setval('hub.revision', $1)", cursor.ahead[0].revision - 1)
        await write(database)
        for _ in range(2):
            with pytest.raises(CursorInvalid):
                await check_cursor(connection, cursor)
            await connection.execute("SELECT hub.stamp()")
        await check_cursor(connection, fork)


async def test_cursors_of_before_there_were_marks_are_good_for_what_was_then(
    database: Database,
) -> None:
    await write(database, 4)
    await stamp(database)
    async with database.connection() as connection:
        await connection.execute("UPDATE hub.log_head SET marked_after = 2")
        epoch = (await cursor_at(connection, 0)).epoch
        for number in range(5):
            cursor = Cursor.parse(Cursor(epoch, number).stored)
            if number <= 2:
                await check_cursor(connection, cursor)
                assert len(await keys_after(connection, cursor, 1)) == 4 - number
            else:
                with pytest.raises(CursorInvalid):
                    await check_cursor(connection, cursor)


MARK = st.binary(min_size=8, max_size=8)
RECORDS = st.none() | st.tuples(st.text(max_size=40), st.text(max_size=40))
CURSORS = st.builds(
    Cursor,
    st.text(st.sampled_from("0123456789abcdef"), min_size=12, max_size=12),
    st.integers(0, 2**63 - 1),
    st.dictionaries(st.integers(1, 2**40), MARK, max_size=MAX_SKIPPED).map(
        lambda found: tuple(Ahead(*item) for item in sorted(found.items()))
    ),
    RECORDS,
    MARK,
    RECORDS,
).map(lambda c: c if c.last is None else replace(c, scope=scope_of([c.last[0], "customers"])))


@given(CURSORS)
def test_a_cursor_is_read_as_it_was_written(cursor: Cursor) -> None:
    text = cursor.stored
    assert Cursor.parse(text) == cursor
    assert text.replace("-", "").replace("_", "").isalnum() and len(text) < 3000


@given(CURSORS, st.data())
def test_a_damaged_cursor_is_refused(cursor: Cursor, data: st.DataObject) -> None:
    text = cursor.stored
    place = data.draw(st.integers(0, len(text) - 1))
    other = data.draw(st.sampled_from("abcXYZ019-_ é").filter(lambda c: c != text[place]))
    for damaged in (text[:place] + other + text[place + 1 :], text[:place], text + other, ""):
        with pytest.raises(CursorInvalid):
            Cursor.parse(damaged)


def test_the_scope_is_that_of_a_set_of_datasets() -> None:
    assert scope_of(["orders", "customers"]) == scope_of(["customers", "orders"])
    others: tuple[list[str], ...] = (
        ["orders"],
        ["customersorders"],
        ["customers", "orders", "contacts"],
        [],
    )
    assert scope_of(["customers", "orders"]) not in [scope_of(names) for names in others]
