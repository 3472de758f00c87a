"""What a start notes about trust is noted once."""

from __future__ import annotations

import asyncpg

from penstockd.auth.trust import note_token_issuer


async def test_a_name_that_is_known_makes_no_worker_read_again(store_url: str) -> None:
    revision = "SELECT revision FROM hub.trust"
    connection = await asyncpg.connect(store_url)
    try:
        await note_token_issuer(connection, "https://hub.example")
        before = await connection.fetchval(revision)
        await note_token_issuer(connection, "https://hub.example")
        assert await connection.fetchval(revision) == before
        await note_token_issuer(connection, "https://other.example")  # the control
        assert await connection.fetchval(revision) > before
    finally:
        await connection.close()
