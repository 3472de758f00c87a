"""GetCheckpoint: the newest signed checkpoint of the audit."""

from __future__ import annotations

from penstockd.audit.checkpoint import Checkpoint
from penstockd.audit.stored_checkpoints import read_checkpoint
from penstockd.calls import Call
from penstockd.errors import DatabaseUnavailable
from penstockd.hub import Hub
from penstockd.policy.model import Permission


async def get_checkpoint(hub: Hub, call: Call) -> Checkpoint:
    """The newest checkpoint. Raises PermissionDenied, DatabaseUnavailable before the first."""
    call.require(Permission.AUDIT_READ)
    async with hub.database.connection() as connection:
        newest = await read_checkpoint(connection)
    if newest is None:
        raise DatabaseUnavailable("no checkpoint has been signed yet")
    return newest
