"""The epochs of the change log that an operator declares (see ``epochs`` for those noticed)."""

from __future__ import annotations

from datetime import datetime

from penstockd.store.database import Connection

#: The newest, if the hub has begun it by itself, and nothing that is known was undone since.
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

    ``lost`` is when the last thing that is known to be undone was there, None if nothing is: an
    epoch that began before that is not of the same return. Returns its number and the number of
    the log behind which it begins. The connection must be in a transaction.
    """
    epoch = await connection.fetchval(_NOTICED, lost)
    if epoch is None:
        epoch = await connection.fetchval(_OPEN, because, checkpoint)
    await connection.execute(_DECLARE, epoch, because, checkpoint)
    last = await connection.fetchval("SELECT last_number FROM hub.epoch WHERE epoch = $1", epoch)
    return epoch, last
