"""Kept states of the data live as long as somebody needs them."""

from __future__ import annotations

import asyncio

import pytest

from penstockd.store import snapshots as module
from penstockd.store.database import Database
from penstockd.store.snapshots import Snapshots


async def test_a_state_whose_holder_is_busy_is_not_given_up(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A query on the holder that takes longer than a sign of life may: it is one itself."""
    monkeypatch.setattr(module, "PULSE", 0.01)
    database = Database(store_url, size=3)
    await database.open()
    snapshots = Snapshots(database, seconds=60.0, most_seconds=600.0)
    held = await snapshots.take()
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    rows = await held.fetch("SELECT 7 FROM pg_sleep(0.5)")
    assert [row[0] for row in rows] == [7]
    assert snapshots.holds(held)
    # The control: a holder whose session is gone is given up.
    async with database.connection() as connection:
        await connection.execute("SELECT pg_terminate_backend($1)", held.session.pid)
    async with asyncio.timeout(60):
        while snapshots.holds(held):  # noqa: ASYNC110 - what it waits for sets no event
            await asyncio.sleep(0.01)
    await snapshots.close()
    await database.close()
