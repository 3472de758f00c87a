"""A state of the data is identified by its name and its place in the log: names are given out
again."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

from penstockd.errors import StateGone
from penstockd.store import snapshots as snapshots_module
from penstockd.store.cursor import Cursor
from penstockd.store.database import Database, Division, WorkKind, open_database
from penstockd.store.snapshots import SnapshotGone, Snapshots
from penstockd.store.states import States


async def test_a_name_that_was_given_out_again_is_another_state(store_url: str) -> None:
    async with open_database(store_url, size=4) as database:
        snapshots = Snapshots(database, seconds=60, most_seconds=600)
        states = States(snapshots)
        try:
            async with states.use("crm", None) as (_, named):
                pass
            async with states.use("crm", named) as (_, again):
                assert again == named
            cursor = named.cursor
            earlier = Cursor(cursor.epoch, cursor.number + 7, mark=b"12345678")
            with pytest.raises(SnapshotGone):
                async with states.use("crm", replace(named, cursor=earlier)):
                    pass
        finally:
            await snapshots.close()


HOLDERS = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND backend_xmin IS NOT NULL AND pid <> pg_backend_pid()
"""


async def until_nothing_is_held(database: Database) -> None:
    """Wait until no session holds back vacuuming."""
    async with asyncio.timeout(60), database.connection() as connection:
        while await connection.fetchval(HOLDERS):
            await connection.execute("SELECT pg_sleep(0.02)")


async def test_a_state_ends_while_somebody_reads_it(store_url: str) -> None:
    async with open_database(store_url, size=4) as database:
        snapshots = Snapshots(database, seconds=60, most_seconds=0.3)
        states = States(snapshots)
        try:
            with pytest.raises(StateGone, match=r"for 0.3 s at most"):
                async with states.use("crm", None) as (_, named):
                    await asyncio.Event().wait()
            # However often its client reconnects, through any process.
            other = Snapshots(database, seconds=60, most_seconds=0.3)
            for each in (states, States(other)):
                with pytest.raises((SnapshotGone, StateGone)):
                    async with each.use("crm", named):
                        await asyncio.Event().wait()
            # The control: a process that allows more joins it while it is held.
            held = await snapshots.take()
            patient = Snapshots(database, seconds=60, most_seconds=600)
            joined = await patient.join(held.name, held.cursor, held.taken)
            assert joined.taken == held.taken
            patient.drop(joined)
        finally:
            await snapshots.close()


async def test_what_is_kept_ends_with_its_age(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots_module, "PULSE", 0.05)
    async with open_database(store_url, size=4) as database:
        snapshots = Snapshots(database, seconds=9000, most_seconds=3600)
        try:
            kept, forgotten = await snapshots.take(), await snapshots.take()
            assert not snapshots.any_old
            # Move the clock of the states, so that the test does not depend on the machine.
            forgotten.end -= 3000
            async with asyncio.timeout(60):
                while not forgotten.old:  # noqa: ASYNC110 - what it waits for sets no event
                    await asyncio.sleep(0.01)
            assert snapshots.holds(kept) and snapshots.holds(forgotten)
            kept.end = forgotten.end = time.monotonic()
            snapshots.keep(kept)  # for no longer than the state may be held
            await until_nothing_is_held(database)
            assert not snapshots.holds(kept) and not snapshots.holds(forgotten)
            assert snapshots.oldest_seconds == 0
        finally:
            await snapshots.close()


async def test_an_old_state_shows(store_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_database(store_url, size=4) as database:
        snapshots = Snapshots(database, seconds=600, most_seconds=3600)
        try:
            held = await snapshots.take()
            shown = [snapshots.any_old]
            held.end -= 3000
            shown.append(snapshots.any_old)
            assert shown == [False, True]
            assert 3000 <= snapshots.oldest_seconds < 3600
            snapshots.drop(held)
            assert snapshots.oldest_seconds == 0
        finally:
            await snapshots.close()


async def test_every_transaction_that_sees_one_state_ends(store_url: str) -> None:
    database = Database(store_url, division=Division(16, snapshot=0.2))
    await database.open()
    try:
        with pytest.raises(StateGone):
            async with database.snapshot() as connection:
                await connection.execute("SELECT pg_sleep(600)")
        # Without a limit of its own, so that it succeeds on any machine.
        async with database.connection(WorkKind.BULK) as connection:
            assert await connection.fetchval("SELECT 1") == 1
    finally:
        await database.close()
