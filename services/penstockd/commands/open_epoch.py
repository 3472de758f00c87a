"""An operator declares that the database has gone back in time, and it goes on from there."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from penstockd.audit.checkpoint import Checkpoint
from penstockd.audit.sealer import SEAL_INTERVAL, Sealer
from penstockd.errors import Conflict
from penstockd.store.database import Database

#: How often it is tried beside a keeper that seals as well.
TRIES = 20
#: One that the hub has noticed by itself, after all that the file of checkpoints knows of.
_NOTICED = """
SELECT epoch FROM hub.epoch
WHERE NOT declared AND begin_time > $1 AND epoch = (SELECT epoch FROM hub.epoch_head FOR UPDATE)
"""
_OPEN = "SELECT hub.open_epoch($1, true, $2)"
_DECLARE = """
UPDATE hub.epoch SET declared = true,
    because = CASE WHEN epoch = $1 THEN $2 ELSE because END,
    checkpoint = CASE WHEN epoch = $1 THEN $3 ELSE checkpoint END
WHERE NOT declared OR epoch = $1
"""


@dataclass(frozen=True, slots=True)
class Epoch:
    """An epoch that has begun: behind which number of the log, and the audit's checkpoint that
    closes the gap, if the file of checkpoints shows one."""

    number: int
    last_number: int
    checkpoint: Checkpoint | None


async def open_epoch(database: Database, sealer: Sealer, because: str) -> Epoch:
    """Close the audit's chain over what was undone, and note it.

    Consumers are told once: an epoch that the hub has begun by itself for the same reason is
    declared, and no other begun. Raises Conflict, OSError if the file of checkpoints cannot be
    read, and DatabaseUnavailable.
    """
    known = sealer.filed()
    checkpoint = await _declared(sealer)
    number = checkpoint and checkpoint.number
    async with database.transaction() as connection:
        epoch = await connection.fetchval(_NOTICED, known.time) if known and checkpoint else None
        if epoch is None:
            epoch = await connection.fetchval(_OPEN, because, number)
        await connection.execute(_DECLARE, epoch, because, number)
        last = await connection.fetchval(
            "SELECT last_number FROM hub.epoch WHERE epoch = $1", epoch
        )
    return Epoch(epoch, last, checkpoint)


async def _declared(sealer: Sealer) -> Checkpoint | None:
    for left in range(TRIES - 1, -1, -1):
        try:
            return await sealer.declare_restore()
        except Conflict:
            if not left:
                raise
            await asyncio.sleep(SEAL_INTERVAL)
    raise AssertionError("the last try returns or raises")
