"""VerifyEntries and GetCheckpoint: the audit proves itself."""

from __future__ import annotations

import asyncio

import structlog

from penstockd.audit.checkpoint import Checkpoint
from penstockd.audit.proof import verify_database
from penstockd.audit.sealer import read_checkpoint
from penstockd.audit.verify import Report
from penstockd.calls import Call
from penstockd.errors import DatabaseUnavailable
from penstockd.hub import Hub
from penstockd.policy.model import Permission

_log = structlog.get_logger(__name__)


async def verify_entries(hub: Hub, call: Call) -> Report:
    """Verify all of the audit as it is now, with the file of checkpoints of this host.

    It takes some ten seconds for each million of entries. Raises PermissionDenied.
    """
    call.require(Permission.AUDIT_READ)
    # The file first: what stands in it when the snapshot is taken is in the database by then.
    outside = await asyncio.to_thread(_filed, hub)
    async with hub.database.snapshot() as connection:
        report = await verify_database(connection, [hub.audit_key], outside)
    call.entry.row_count = report.entries
    return report


async def newest_checkpoint(hub: Hub, call: Call) -> Checkpoint:
    """The newest checkpoint. Raises PermissionDenied, DatabaseUnavailable before the first."""
    call.require(Permission.AUDIT_READ)
    async with hub.database.connection() as connection:
        newest = await read_checkpoint(connection)
    if newest is None:
        raise DatabaseUnavailable("no checkpoint has been signed yet")
    return newest


def _filed(hub: Hub) -> list[Checkpoint]:
    try:
        return hub.audit_file.read()
    except OSError as exc:
        _log.warning("checkpoints_not_read", path=str(hub.audit_file.path), error=str(exc))
        return []
