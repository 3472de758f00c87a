"""Kept states of the data live as long as somebody needs them."""

from __future__ import annotations

import asyncio

import pytest

from penstockd.store import snapshots as module
from penstockd.store.database import Database
from penstockd.store.snapshots import Held, Snapshots


async def until_lost(snapshots: Snapshots, held: Held) -> None:
    """Wait until a state is no longer held."""
    async with asyncio.timeout(60):
        while snapshots.holds(held):  # noqa: ASYNC110 - what it waits for sets no event
            await asyncio.sleep(0.01)


async def test_a_state_whose_holder_is_busy_is_not_given_up(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A long query on the holder counts as a sign of life.

    During the query signs of life may take no time at all, and two of them are due: each releases
    one of two states that nobody needs.
    """
    monkeypatch.setattr(module, "PULSE", 0.01)
    database = Database(store_url, size=3)
    await database.open()
    snapshots = Snapshots(database, seconds=60.0, most_seconds=600.0)
    held, *unneeded = [await snapshots.take() for _ in range(3)]
    async with held.lock:  # as during a query
        with monkeypatch.context() as impatient:
            impatient.setattr(module, "PATIENCE", 0.0)
            for other in unneeded:
                snapshots.keep(other, seconds=0.0)
                await until_lost(snapshots, other)
            assert snapshots.holds(held)
    rows = await held.fetch("SELECT 7")
    assert [row[0] for row in rows] == [7]
    # The control: a holder whose session is gone is given up.
    async with database.connection() as connection:
        await connection.execute("SELECT pg_terminate_backend($1)", held.session.pid)
    await until_lost(snapshots, held)
    await snapshots.close()
    await database.close()
