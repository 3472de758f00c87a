"""Stored replies: one call at a time claims one, it is kept for a day, and then deleted."""

from __future__ import annotations

import asyncio

import pytest

from penstockd.store.database import Database
from penstockd.store.replies import (
    StoredReply,
    claim_request,
    forget_replies,
    read_reply,
    store_reply,
)

REPLY = StoredReply("/m", b"digest", b"sight", b"reply", 1)


async def test_one_transaction_at_a_time_has_an_id(database: Database) -> None:
    released, claimed = asyncio.Event(), asyncio.Event()

    async def first() -> None:
        async with database.transaction() as connection:
            assert await claim_request(connection, "c", "1")
            await store_reply(connection, "c", "1", REPLY)
            claimed.set()
            await released.wait()

    task = asyncio.create_task(first())
    await claimed.wait()
    async with database.transaction() as connection:
        assert not await claim_request(connection, "c", "1")
        assert await claim_request(connection, "c", "2")
        assert await claim_request(connection, "d", "1")
        assert await read_reply(connection, "c", "1") is None
    released.set()
    await task
    async with database.transaction() as connection:
        assert await claim_request(connection, "c", "1")
        assert await read_reply(connection, "c", "1") == REPLY
        assert await read_reply(connection, "d", "1") is None


async def test_what_is_rolled_back_was_not(database: Database) -> None:
    with pytest.raises(RuntimeError):
        async with database.transaction() as connection:
            assert await claim_request(connection, "c", "1")
            await store_reply(connection, "c", "1", REPLY)
            raise RuntimeError
    async with database.transaction() as connection:
        assert await claim_request(connection, "c", "1")
        assert await read_reply(connection, "c", "1") is None


async def test_after_a_day_it_is_forgotten(database: Database) -> None:
    age = (
        "UPDATE hub.stored_reply SET create_time = now() - $2::text::interval WHERE request_id = $1"
    )
    async with database.connection() as connection:
        for name, old in (("young", "23 hours 59 minutes"), ("old", "24 hours 1 second")):
            await store_reply(connection, "c", name, REPLY)
            await connection.execute(age, name, old)
        assert await read_reply(connection, "c", "young") == REPLY
        assert await read_reply(connection, "c", "old") is None
        newer = StoredReply("/n", b"d", b"s", None, 2)
        await store_reply(connection, "c", "old", newer)
        assert await read_reply(connection, "c", "old") == newer
        assert await forget_replies(connection) == 0
        await connection.execute(age, "old", "25 hours")
        assert await forget_replies(connection) == 1
        rows = await connection.fetch("SELECT request_id FROM hub.stored_reply")
        assert [row[0] for row in rows] == ["young"]
