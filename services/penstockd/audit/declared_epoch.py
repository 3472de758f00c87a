"""Declares, for an operator, that the database has gone back in time, and begins an epoch."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from penstockd.audit.checkpoint import Checkpoint, CheckpointFile
from penstockd.audit.sealer import SEAL_INTERVAL, Sealer
from penstockd.errors import Conflict
from penstockd.store.database import Database
from penstockd.store.declared_epochs import declare_epoch

#: How often it is tried while a keeper also seals.
TRIES = 20


@dataclass(frozen=True, slots=True)
class Epoch:
    """An epoch: its number, the log number after which it begins, and the audit's checkpoint that
    closes the gap, if the file of checkpoints shows a gap."""

    number: int
    last_number: int
    checkpoint: Checkpoint | None


async def open_epoch(
    database: Database, sealer: Sealer, file: CheckpointFile, because: str
) -> Epoch:
    """Declare an epoch, and close the gap in the audit's chain with a signed checkpoint.

    If the hub itself has begun an epoch for the same reason, declares that one and begins no other,
    so that consumers are notified once. Raises Conflict, OSError if the file of checkpoints cannot
    be read, and DatabaseUnavailable.
    """
    known = file.last()
    checkpoint = await _declare_checkpoint(sealer, file)
    number = checkpoint.number if checkpoint else None
    lost = known.epochs if known and checkpoint else ()
    async with database.transaction() as connection:
        epoch, last = await declare_epoch(connection, because, number, lost)
    return Epoch(epoch, last, checkpoint)


async def _declare_checkpoint(sealer: Sealer, file: CheckpointFile) -> Checkpoint | None:
    for left in range(TRIES - 1, -1, -1):
        try:
            return await sealer.declare_restore(file)
        except Conflict:
            if not left:
                raise
            await asyncio.sleep(SEAL_INTERVAL)
    raise AssertionError("the last try returns or raises")
