"""Usage is proved from the entries, and where they are archived, from what was signed of it."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Sequence
from typing import Any

import pytest

from chance import SEED
from penstockd.audit.checkpoint import Checkpoint, CheckpointKey, CheckpointKind
from penstockd.audit.proof import verify_database
from penstockd.audit.sealer import Sealer
from penstockd.audit.stored_checkpoints import insert_checkpoint, read_checkpoints
from penstockd.metering.days import UsageDays
from penstockd.metering.digests import insert_digest, read_digest
from penstockd.metering.reconcile import Reconciliation, reconcile_usage
from penstockd.metering.rollups import UsageLevel, read_levels
from penstockd.store.database import Database
from usage_books import KEY, draw_entry, move_day, seal_and_fold, store_rules, write_entries

FOREVER = dict.fromkeys(UsageLevel, 10_000)


@pytest.fixture
async def old(database: Database) -> dt.date:
    """A day that ended, with 40 entries, all counted; today has 40 as well."""
    chance = random.Random(SEED)
    async with database.connection() as connection:
        await connection.execute("SELECT hub.add_audit_partitions(1)")
        await store_rules(connection)
        today: dt.date = await connection.fetchval("SELECT (now() AT TIME ZONE 'UTC')::date")
    day = today - dt.timedelta(days=50)
    await write_entries(database, [draw_entry(chance, n) for n in range(40)])
    async with database.connection() as connection:
        await move_day(connection, day)
    await seal_and_fold(database)
    await write_entries(database, [draw_entry(chance, n) for n in range(40)])
    await seal_and_fold(database)
    return day


async def reconcile(
    database: Database,
    outside: Sequence[Checkpoint] = (),
    key: CheckpointKey = KEY,
    first: dt.date = dt.date.min,
    last: dt.date = dt.date.max,
) -> Reconciliation:
    async with database.transaction(isolation="repeatable_read") as connection:
        return await reconcile_usage(connection, [key.public], outside, first, last)


async def reconcile_damaged(
    database: Database, damage: str, last: dt.date = dt.date.max
) -> Reconciliation:
    """Reconcile after a statement, which is undone."""
    async with database.transaction(isolation="repeatable_read", dry=True) as connection:
        await connection.execute(damage)
        return await reconcile_usage(connection, [KEY.public], (), dt.date.min, last)


async def execute(database: Database, sql: str, *arguments: Any) -> None:
    async with database.connection() as connection:
        await connection.execute(sql, *arguments)


async def archive(database: Database, day: dt.date) -> None:
    """Close and sign a day, and drop its entries and its chain as the retention does."""
    assert await UsageDays(database, FOREVER).close_next() == day
    await Sealer(database, KEY, None).seal()
    for table in ("entry", "seal", "chain"):
        await execute(database, f"DELETE FROM hub.audit_{table} WHERE day = $1", day)


async def test_what_is_metered_is_what_is_audited(database: Database, old: dt.date) -> None:
    result = await reconcile(database)
    assert result.metered == result.audited and result.metered.calls > 0 and not result.found
    assert (result.entries, len(result.compared), result.unfolded) == (80, 2, 0)
    part = await reconcile(database, last=old)
    assert (part.entries, part.compared) == (40, [old])
    # Entries that are sealed, and not counted yet, are no difference: they are told.
    await write_entries(database, [draw_entry(random.Random(SEED), n) for n in range(5)])
    await Sealer(database, KEY, None).seal()
    result = await reconcile(database)
    assert (result.unfolded, result.found) == (5, 0)


async def test_a_clock_that_jumps_loses_and_doubles_nothing(
    database: Database, old: dt.date
) -> None:
    """The times of entries, and the days of their chains, are those of a clock that was set."""
    chance = random.Random(SEED)
    entries = 80
    for _ in range(12):
        count = chance.randrange(1, 12)
        entries += count
        await write_entries(database, [draw_entry(chance, n) for n in range(count)])
        async with database.connection() as connection:
            if chance.random() < 0.5:
                await move_day(connection, old + dt.timedelta(days=chance.randrange(-1, 2)))
            await connection.execute(
                "UPDATE hub.audit_entry SET entry_time = entry_time + $1 WHERE NOT EXISTS ("
                " SELECT FROM hub.audit_seal AS s WHERE s.day = audit_entry.day"
                " AND entry_id = ANY (s.entry_ids))",
                dt.timedelta(minutes=chance.randrange(-4000, 4000)),
            )
        if chance.random() < 0.7:
            await seal_and_fold(database)
    await seal_and_fold(database)
    result = await reconcile(database)
    assert (result.found, result.unfolded, result.entries) == (0, 0, entries)
    assert result.metered == result.audited


#: What someone may do to the tables, and what is found then.
DIFFERENCES = [
    ("UPDATE hub.usage_minute SET records = records + 1 WHERE calls > 0", "metered records"),
    ("DELETE FROM hub.usage_minute WHERE calls > 0", "metered calls 0"),
    ("UPDATE hub.usage_hour SET bytes = bytes - 1", "by the hour are not the sums"),
    ("DELETE FROM hub.usage_day", "by the day are not the sums"),
    ("DELETE FROM hub.audit_entry WHERE outcome = 'OK'", "audited"),
    ("UPDATE hub.usage_series SET consumer_id = 'other' WHERE consumer_id = 'crm'", "=other"),
    (
        "INSERT INTO hub.usage_day SELECT '2001-02-03', series_id, 1, 0, 0, 0"
        " FROM hub.usage_series LIMIT 1",
        "2001-02-03",
    ),
    ("UPDATE hub.usage_place SET missing = 1", "1 sealed entries were missing"),
]


async def test_a_difference_is_found(database: Database, old: dt.date) -> None:
    for damage, words in DIFFERENCES:
        result = await reconcile_damaged(database, damage)
        assert any(words in str(finding) for finding in result.findings), (damage, result.findings)
    assert (await reconcile(database)).found == 0


async def test_an_archived_day_is_proved_by_its_signature(database: Database, old: dt.date) -> None:
    assert (await reconcile(database)).proved == []
    before = (await reconcile(database, last=old)).metered
    await archive(database, old)
    result = await reconcile(database)
    assert (result.found, result.proved, result.signed) == (0, [old], before)
    assert result.entries == 40
    async with database.transaction(isolation="repeatable_read") as connection:
        marks = await read_checkpoints(connection)
        report = await verify_database(connection, [KEY.public], marks)
    assert [c.day for c in marks if c.kind is CheckpointKind.USAGE] == [old]
    assert [f for f in report.findings if f.day is None] == []


DAMAGES = [
    ("UPDATE hub.usage_day SET calls = calls + 1", "by the day are not what was signed"),
    ("DELETE FROM hub.usage_hour", "by the hour are not what was signed"),
    ("UPDATE hub.usage_minute SET bytes = 0", "by the minute are not what was signed"),
    ("UPDATE hub.usage_place SET entries = entries + 1, folded = folded + 1", "since it was"),
    ("DELETE FROM hub.usage_digest", "nothing signs its usage"),
    ("DELETE FROM hub.audit_checkpoint WHERE kind = 'USAGE'", "nothing signs its usage"),
    ("UPDATE hub.audit_checkpoint SET hash = '\\x00' WHERE kind = 'USAGE'", "does not match"),
]


async def test_damage_to_an_archived_day_is_found(database: Database, old: dt.date) -> None:
    await archive(database, old)
    for damage, words in DAMAGES:
        result = await reconcile_damaged(database, damage, last=old)
        assert len(result.findings) == 1, (damage, result.findings)
        assert words in str(result.findings[0]), (damage, result.findings)
    assert (await reconcile(database, last=old)).found == 0


async def test_only_trusted_keys_prove(database: Database, old: dt.date) -> None:
    await archive(database, old)
    # Whoever can write to the database replaces the rollups, the digests and the checkpoint.
    async with database.connection() as connection:
        marks = await read_checkpoints(connection)
        digest = await read_digest(connection, old)
        assert digest is not None
        await insert_digest(
            connection, old, digest.entries, {**digest.levels, UsageLevel.DAY: b"x" * 32}
        )
        forged = await read_digest(connection, old)
        assert forged is not None
        now = await connection.fetchval("SELECT now()")
        other = CheckpointKey(b"o" * 32)
        await insert_checkpoint(
            connection, other.sign_usage(marks[-1], now, old, forged.entries, forged.digest)
        )
    (finding,) = (await reconcile(database, last=old)).findings
    assert "unknown key" in str(finding)
    # A kept file reveals that the newest digest was taken back.
    kept = KEY.sign_usage(marks[-1], now, old, 41, b"y" * 32)
    await execute(database, "DELETE FROM hub.usage_digest WHERE revision = 2")
    await execute(database, "DELETE FROM hub.audit_checkpoint WHERE number = $1", kept.number)
    assert (await reconcile(database, last=old)).found == 0
    (finding,) = (await reconcile(database, [kept], last=old)).findings
    assert f"not what checkpoint {kept.number} signs" in str(finding)


async def test_a_day_is_closed_again_if_entries_come_late(database: Database, old: dt.date) -> None:
    days = UsageDays(database, FOREVER)
    assert await days.close_next() == old and await days.close_next() is None
    chance = random.Random(SEED)
    await write_entries(database, [draw_entry(chance, n) for n in range(5)])
    async with database.connection() as connection:
        await move_day(connection, old)
    await Sealer(database, KEY, None).seal()
    assert await days.close_next() is None  # not before they are counted
    await seal_and_fold(database)
    assert await days.close_next() == old and await days.close_next() is None
    await Sealer(database, KEY, None).seal()
    async with database.connection() as connection:
        digest = await read_digest(connection, old)
        assert digest is not None and (digest.revision, digest.entries) == (2, 45)
        assert digest.checkpoint is not None


async def test_rollups_are_dropped_level_by_level_once_signed(
    database: Database, old: dt.date
) -> None:
    days = UsageDays(database, {UsageLevel.MINUTE: 35, UsageLevel.HOUR: 60, UsageLevel.DAY: 90})
    assert not any((await days.drop_old()).values())  # the day is not signed
    await days.close_next()
    assert not any((await days.drop_old()).values())
    await Sealer(database, KEY, None).seal()
    dropped = await days.drop_old()
    assert dropped[UsageLevel.MINUTE] > 0 == dropped[UsageLevel.HOUR] == dropped[UsageLevel.DAY]
    async with database.connection() as connection:
        oldest = await read_levels(connection)
    assert old < oldest[UsageLevel.MINUTE] and oldest[UsageLevel.HOUR] == dt.date.min
    # What is left of the day is compared, and proved, as before.
    result = await reconcile(database)
    assert result.found == 0 and result.metered == result.audited and result.entries == 80
    await execute(database, "UPDATE hub.usage_hour SET calls = calls + 1")
    assert (await reconcile(database, last=old)).found > 0
    await execute(database, "UPDATE hub.usage_hour SET calls = calls - 1")
    for table in ("entry", "seal", "chain"):
        await execute(database, f"DELETE FROM hub.audit_{table} WHERE day = $1", old)
    result = await reconcile(database, last=old)
    assert (result.found, result.proved) == (0, [old])
