"""Replies of calls with a request id: claimed, stored, read again, and deleted after a day."""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from datetime import timedelta

from penstockd.store.database import Connection
from penstockd.store.fences import Transactions

#: How long a reply is returned again.
LIFETIME = timedelta(hours=24)
#: How often expired replies are deleted, in seconds.
INTERVAL = 600.0
#: Replies deleted per statement at most.
_FORGOTTEN_AT_ONCE = 10_000

_READ = """
SELECT method, digest, sight, reply, row_count FROM hub.stored_reply
WHERE consumer_id = $1 AND request_id = $2 AND create_time > now() - $3::interval
"""
_STORE = """
INSERT INTO hub.stored_reply (consumer_id, request_id, method, digest, sight, reply, row_count)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (consumer_id, request_id) DO UPDATE SET method = excluded.method,
    digest = excluded.digest, sight = excluded.sight, reply = excluded.reply,
    row_count = excluded.row_count, create_time = excluded.create_time
"""
_FORGET = """
DELETE FROM hub.stored_reply WHERE (consumer_id, request_id) IN (
    SELECT consumer_id, request_id FROM hub.stored_reply
    WHERE create_time <= now() - $1::interval ORDER BY create_time LIMIT $2
)
"""


@dataclass(frozen=True, slots=True)
class StoredReply:
    """The reply of a call, and what identifies the call: see ``hub.stored_reply``."""

    method: str
    digest: bytes
    sight: bytes
    reply: bytes | None
    row_count: int


async def claim_request(connection: Connection, consumer: str, request_id: str) -> bool:
    """Claim a consumer's request id until the transaction ends; False if another transaction has
    it.

    A transaction that obtains the claim sees whatever the previous holder stored.
    """
    name = f"request\0{consumer}\0{request_id}".encode()
    key = int.from_bytes(hashlib.sha256(name).digest()[:8], signed=True)
    return bool(await connection.fetchval("SELECT pg_try_advisory_xact_lock($1)", key))


async def read_reply(connection: Connection, consumer: str, request_id: str) -> StoredReply | None:
    """The reply stored for a request id; None if there is none or it has expired."""
    row = await connection.fetchrow(_READ, consumer, request_id, LIFETIME)
    return None if row is None else StoredReply(*row)


async def store_reply(
    connection: Connection, consumer: str, request_id: str, stored: StoredReply
) -> None:
    """Store a reply, replacing an expired one."""
    await connection.execute(
        _STORE,
        *(consumer, request_id, stored.method, stored.digest, stored.sight),
        *(stored.reply, stored.row_count),
    )


async def forget_replies(connection: Connection) -> int:
    """Delete expired replies; returns how many."""
    done = 0
    while True:
        status = await connection.execute(_FORGET, LIFETIME, _FORGOTTEN_AT_ONCE)
        count = int(status.rpartition(" ")[2])
        done += count
        if count < _FORGOTTEN_AT_ONCE:
            return done


async def prune_replies(database: Transactions) -> None:
    """Delete expired replies every INTERVAL until cancelled. Raises DatabaseUnavailable."""
    while True:
        async with database.transaction() as connection:
            await forget_replies(connection)
        await asyncio.sleep(INTERVAL)
