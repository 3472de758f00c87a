"""Checkpoints of the audit as the database keeps them."""

from __future__ import annotations

from typing import Any

from penstockd.audit.checkpoint import Checkpoint, CheckpointKind
from penstockd.store.database import Connection

_CHECKPOINT = """
SELECT number, checkpoint_time, kind, day, sequence, hash, previous, public_key, signature
FROM hub.audit_checkpoint
"""
#: No checkpoint has a larger number.
_LAST = 2**63 - 1
_HANDOVERS = """
WHERE kind = 'ROTATE'
    OR number IN (SELECT number + 1 FROM hub.audit_checkpoint WHERE kind = 'ROTATE')
ORDER BY number
"""


async def insert_checkpoint(connection: Connection, checkpoint: Checkpoint) -> None:
    """Store a checkpoint."""
    await connection.execute(
        "INSERT INTO hub.audit_checkpoint (number, checkpoint_time, kind, day, sequence, hash,"
        " previous, public_key, signature) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        checkpoint.number,
        checkpoint.time,
        checkpoint.kind,
        checkpoint.day,
        checkpoint.sequence,
        checkpoint.hash,
        checkpoint.previous,
        checkpoint.public_key,
        checkpoint.signature,
    )


async def read_checkpoint(connection: Connection) -> Checkpoint | None:
    """The newest checkpoint."""
    row = await connection.fetchrow(_CHECKPOINT + "ORDER BY number DESC LIMIT 1")
    return _parse_row(row) if row is not None else None


async def read_checkpoints(
    connection: Connection, *, after: int = 0, until: int = _LAST
) -> list[Checkpoint]:
    """All checkpoints with numbers above ``after`` and up to ``until``, in order."""
    where = "WHERE number > $1 AND number <= $2 ORDER BY number"
    rows = await connection.fetch(_CHECKPOINT + where, after, until)
    return [_parse_row(row) for row in rows]


async def read_handovers(connection: Connection) -> list[Checkpoint]:
    """The checkpoints that hand over to another key, each with its successor."""
    rows = await connection.fetch(_CHECKPOINT + _HANDOVERS)
    return [_parse_row(row) for row in rows]


def _parse_row(row: Any) -> Checkpoint:
    number, time, kind, *rest = row
    return Checkpoint(number, time, CheckpointKind(kind), *rest)
