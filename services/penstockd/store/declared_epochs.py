"""Epochs of the change log that an operator declares (see ``epochs`` for those the hub notices)."""

from __future__ import annotations

from datetime import datetime

from penstockd.store.database import Connection

#: The newest, if the hub began it by itself and nothing known was undone since.
_NOTICED = """
SELECT epoch FROM hub.epoch
WHERE NOT declared AND (begin_time > $1) IS NOT FALSE
AND epoch = (SELECT epoch FROM hub.epoch_head FOR UPDATE)
"""
_OPEN = "SELECT hub.open_epoch($1, true, $2)"
_DECLARE = """
UPDATE hub.epoch SET declared = true,
    because = CASE WHEN epoch = $1 THEN $2 ELSE because END,
    checkpoint = CASE WHEN epoch = $1 THEN $3 ELSE checkpoint END
WHERE NOT declared OR epoch = $1
"""


async def declare_epoch(
    connection: Connection, because: str, checkpoint: int | None, lost: datetime | None
) -> tuple[int, int]:
    """Declare the epoch that the hub has begun by itself, or else a new one.

    ``lost`` is the latest time at which something now undone is known to have existed, or None: an
    epoch that began before it belongs to an earlier return. Returns the epoch's number and the log
    number after which it begins. The connection must be in a transaction.
    """
    epoch = await connection.fetchval(_NOTICED, lost)
    if epoch is None:
        epoch = await connection.fetchval(_OPEN, because, checkpoint)
    await connection.execute(_DECLARE, epoch, because, checkpoint)
    last = await connection.fetchval("SELECT last_number FROM hub.epoch WHERE epoch = $1", epoch)
    return epoch, last
