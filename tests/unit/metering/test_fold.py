"""The fold counts every sealed entry once: whatever commits late, is killed or runs twice."""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from typing import Any

import pytest

from chance import SEED
from penstockd.audit.entry import Entry, insert_entries
from penstockd.audit.sealer import Sealer
from penstockd.errors import Conflict
from penstockd.metering import fold as folding
from penstockd.metering.fold import SealMissing, UsageFold, is_folded, newest_folded_day
from penstockd.metering.rollups import UsageLevel, add_counts
from penstockd.store.database import Connection, Database
from usage_books import (
    KEY,
    count_entries,
    draw_entry,
    move_day,
    read_counts,
    seal_and_fold,
    store_rules,
    write_entries,
)


@pytest.fixture(autouse=True)
async def rules(database: Database) -> None:
    async with database.connection() as connection:
        await connection.execute("SELECT hub.add_audit_partitions(1)")
        await store_rules(connection)


async def check_counts(database: Database, entries: list[Entry]) -> None:
    """Check every level against the entries."""
    async with database.connection() as connection:
        for level in UsageLevel:
            assert await read_counts(connection, level) == count_entries(entries)


async def test_entries_that_commit_out_of_order_are_counted_once(database: Database) -> None:
    chance = random.Random(SEED)
    entries = [draw_entry(chance, number) for number in range(300)]
    fold = UsageFold(database, batch=20)
    naive, last = 0, 0  # the control: a fold whose place is the greatest id that it has seen
    left = list(entries)
    async with AsyncExitStack() as stack:
        late = await stack.enter_async_context(database.transaction())
        held = [left.pop() for _ in range(20)]
        await insert_entries(late, held)
        while left:
            some = [left.pop() for _ in range(min(len(left), chance.randrange(1, 30)))]
            await write_entries(database, some)
            if chance.random() < 0.5:
                await Sealer(database, KEY, None).seal()
            await fold.fold_next()
            async with database.connection() as connection:
                seen = await connection.fetch(
                    "SELECT entry_id FROM hub.audit_entry WHERE entry_id > $1", last
                )
            naive, last = naive + len(seen), max([last, *(row[0] for row in seen)])
    await seal_and_fold(database)
    await check_counts(database, entries)
    assert naive == len(entries) - len(held)
    async with database.connection() as connection:
        day = await connection.fetchval("SELECT max(day) FROM hub.audit_chain")
        assert await is_folded(connection, day) and await newest_folded_day(connection) == day


async def test_a_fold_that_ends_midway_leaves_nothing(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(SEED)
    entries = [draw_entry(chance, number) for number in range(60)]
    await write_entries(database, entries)
    await Sealer(database, KEY, None).seal()
    add = add_counts

    async def add_and_end(connection: Connection, *given: Any) -> None:
        await add(connection, *given)
        assert await read_counts(connection, "minute") == count_entries(entries)
        raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(folding, "add_counts", add_and_end)
        with pytest.raises(RuntimeError, match="killed"):
            await UsageFold(database).fold_next()
    async with database.connection() as connection:
        assert not await read_counts(connection, "minute")
        day = await connection.fetchval("SELECT max(day) FROM hub.audit_chain")
        assert not await is_folded(connection, day)
        assert await newest_folded_day(connection) != day
    assert await seal_and_fold(database) == len(entries)
    assert await seal_and_fold(database) == 0
    await check_counts(database, entries)


async def test_two_folds_at_once_count_once(database: Database) -> None:
    """The lease prevents this; if it ever fails to, one of them fails."""
    chance = random.Random(SEED)
    entries = [draw_entry(chance, number) for number in range(200)]
    for at in range(0, len(entries), 20):
        await write_entries(database, entries[at : at + 20])
        await Sealer(database, KEY, None).seal()

    async def run() -> None:
        fold = UsageFold(database, batch=20)
        while True:
            try:
                if not await fold.fold_next():
                    return
            except Conflict:
                pass

    await asyncio.gather(run(), run(), run())
    await check_counts(database, entries)


async def test_an_entry_belongs_to_the_day_of_its_chain(database: Database) -> None:
    """The clock passes midnight, or is set back, between the day of an entry and its time."""
    await write_entries(database, [Entry(f"r{n}", "/penstock.hub.v1.Usage/X") for n in range(3)])
    async with database.connection() as connection:
        await connection.execute(
            "UPDATE hub.audit_entry SET entry_time = CASE request_id"
            " WHEN 'r0' THEN (day + 1)::timestamp AT TIME ZONE 'UTC'"
            " WHEN 'r1' THEN day::timestamp AT TIME ZONE 'UTC' - interval '1 hour'"
            " ELSE day::timestamp AT TIME ZONE 'UTC' + interval '12:30:59.999' END"
        )
    await seal_and_fold(database)
    async with database.connection() as connection:
        for level, expected in (
            ("minute", ["00:00", "12:30", "23:59"]),
            ("hour", ["00:00", "12:00", "23:00"]),
            ("day", ["00:00"]),
        ):
            rows = await connection.fetch(
                "SELECT to_char(bucket_time AT TIME ZONE 'UTC', 'HH24:MI'),"
                " (bucket_time AT TIME ZONE 'UTC')::date"
                f" = (SELECT max(day) FROM hub.audit_entry) FROM hub.usage_{level} ORDER BY 1"
            )
            assert [row[0] for row in rows] == expected and all(row[1] for row in rows)


async def test_a_chain_that_states_more_than_it_has_holds_up_nothing(database: Database) -> None:
    chance = random.Random(SEED)
    entries = [draw_entry(chance, number) for number in range(40)]
    await write_entries(database, entries[:20])
    async with database.connection() as connection:
        day = await connection.fetchval("SELECT max(day) - 3 FROM hub.audit_entry")
        await move_day(connection, day)
    await seal_and_fold(database)
    async with database.connection() as connection:
        await connection.execute("UPDATE hub.audit_chain SET last_sequence = 99")
    await write_entries(database, entries[20:])
    assert await seal_and_fold(database) == 20
    await check_counts(database, entries)
    async with database.connection() as connection:
        assert await is_folded(connection, day)


async def test_series_without_rollups_are_pruned(database: Database) -> None:
    """Once rollups by the day were dropped, and never those that a rollup names."""
    chance, fold = random.Random(SEED), UsageFold(database)
    entries = [draw_entry(chance, number) for number in range(60)]
    await write_entries(database, entries)
    await seal_and_fold(database)
    async with database.connection() as connection:
        await connection.execute(
            "INSERT INTO hub.usage_series"
            " (consumer_id, credential_id, plan, method, surface, dataset, status, classes)"
            " VALUES ('gone', '', '', '', '', '', '', '')"
        )
        assert await fold.prune_series() == 0
        await connection.execute(
            "UPDATE hub.usage_level SET oldest_day = current_date - 3660 WHERE level = 'day'"
        )
    assert (await fold.prune_series(), await fold.prune_series()) == (1, 0)
    await check_counts(database, entries)
    await write_entries(database, entries)  # known series go on to be found
    await seal_and_fold(database)
    await check_counts(database, [*entries, *entries])


@pytest.mark.parametrize("batch", [folding.BATCH, 3])
async def test_a_missing_seal_stops_the_fold(database: Database, batch: int) -> None:
    """What precedes the gap is counted once, and nothing behind it, until the seal is back."""
    chance, fold = random.Random(SEED), UsageFold(database, batch=batch)
    entries = [draw_entry(chance, number) for number in range(30)]
    for at in range(0, len(entries), 10):
        await write_entries(database, entries[at : at + 10])
        await Sealer(database, KEY, None).seal()
    gone = "FROM hub.audit_seal WHERE first_sequence = 11"
    async with database.connection() as connection:
        await connection.execute(f"CREATE TABLE gone AS SELECT * {gone}")
        await connection.execute(f"DELETE {gone}")
    assert await fold.fold_next() == 10
    for _ in range(3):
        with pytest.raises(SealMissing, match="the seal of entry 11 is missing"):
            await fold.fold_next()
        with pytest.raises(SealMissing):
            await fold.run()
        await check_counts(database, entries[:10])
    async with database.connection() as connection:
        await connection.execute("INSERT INTO hub.audit_seal SELECT * FROM gone")
    while await fold.fold_next():
        pass
    await check_counts(database, entries)
