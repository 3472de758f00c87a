"""Epochs of the change log that an operator declares (see ``epochs`` for those the hub notices)."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from penstockd.store.database import Connection

#: The newest epoch, if the hub began it by itself and nothing known was undone since.
_NOTICED = """
SELECT e.epoch FROM hub.epoch AS e JOIN hub.epoch_head AS h USING (id)
WHERE NOT e.declared AND h.id <> ALL ($1::uuid[]) FOR UPDATE OF h
"""
_OPEN = "SELECT hub.open_epoch($1, true, $2)"
_DECLARE = """
UPDATE hub.epoch SET declared = true,
    because = CASE WHEN epoch = $1 THEN $2 ELSE because END,
    checkpoint = CASE WHEN epoch = $1 THEN $3 ELSE checkpoint END
WHERE NOT declared OR epoch = $1
"""


async def declare_epoch(
    connection: Connection, because: str, checkpoint: int | None, lost: Sequence[UUID]
) -> tuple[int, int]:
    """Declare the epoch that the hub has begun by itself, or else a new one.

    ``lost`` are the epochs of the database, by id, in which something now undone is known to have
    existed: these belong to earlier returns. Returns the epoch's number and the log number after
    which it begins. The connection must be in a transaction.
    """
    epoch = await connection.fetchval(_NOTICED, list(lost))
    if epoch is None:
        epoch = await connection.fetchval(_OPEN, because, checkpoint)
    await connection.execute(_DECLARE, epoch, because, checkpoint)
    last = await connection.fetchval("SELECT last_number FROM hub.epoch WHERE epoch = $1", epoch)
    return epoch, last
