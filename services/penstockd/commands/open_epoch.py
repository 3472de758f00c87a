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
#: So many revisions are left out, lest those of what was undone are given out again.
LEFT_OUT = 1 << 20
_OPEN = """
INSERT INTO hub.epoch (because, last_number, checkpoint)
SELECT $1, last_number, $2 FROM hub.log_head RETURNING epoch, last_number
"""


@dataclass(frozen=True, slots=True)
class Epoch:
    """An epoch that has begun: behind which number of the log, and the audit's checkpoint that
    closes the gap, if the file of checkpoints shows one."""

    number: int
    last_number: int
    checkpoint: Checkpoint | None


async def open_epoch(database: Database, sealer: Sealer, because: str) -> Epoch:
    """Close the audit's chain over what was undone, and note it. Raises Conflict, OSError if the
    file of checkpoints cannot be read, and DatabaseUnavailable."""
    checkpoint = await _declared(sealer)
    async with database.transaction() as connection:
        row = await connection.fetchrow(_OPEN, because, checkpoint and checkpoint.number)
        assert row is not None, "a row was inserted"
        await connection.execute(
            "SELECT setval('hub.revision', nextval('hub.revision') + $1)", LEFT_OUT
        )
    return Epoch(row[0], row[1], checkpoint)


async def _declared(sealer: Sealer) -> Checkpoint | None:
    for left in range(TRIES - 1, -1, -1):
        try:
            return await sealer.declare_restore()
        except Conflict:
            if not left:
                raise
            await asyncio.sleep(SEAL_INTERVAL)
    raise AssertionError("the last try returns or raises")
