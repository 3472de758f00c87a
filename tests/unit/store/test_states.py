"""A state of the data is found by its name and its place in the log: names are given out again."""

from __future__ import annotations

from dataclasses import replace

import pytest

from penstockd.store.cursor import Cursor
from penstockd.store.database import open_database
from penstockd.store.snapshots import SnapshotGone, Snapshots
from penstockd.store.states import States


async def test_a_name_that_was_given_out_again_is_another_state(store_url: str) -> None:
    async with open_database(store_url, size=4) as database:
        snapshots = Snapshots(database, seconds=60)
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
