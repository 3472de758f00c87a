"""An operator declares that the database has gone back in time, and it goes on from there."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from penstockd.audit.checkpoint import Checkpoint
from penstockd.audit.sealer import SEAL_INTERVAL, Sealer
from penstockd.errors import Conflict
from penstockd.store.database import Database
from penstockd.store.declared_epochs import declare_epoch

#: How often it is tried beside a keeper that seals as well.
TRIES = 20


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
    number = checkpoint.number if checkpoint else None
    lost = known.time if known and checkpoint else None
    async with database.transaction() as connection:
        epoch, last = await declare_epoch(connection, because, number, lost)
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
