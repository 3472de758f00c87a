"""VerifyEntries: the hub verifies its own audit."""

from __future__ import annotations

import asyncio

from penstockd.audit.checkpoint import RingSigners, read_filed
from penstockd.audit.proof import verify_database
from penstockd.audit.verify import VerificationReport
from penstockd.calls import Call
from penstockd.hub import Hub
from penstockd.policy.model import Permission


async def verify_entries(hub: Hub, call: Call) -> VerificationReport:
    """Verify the whole audit as it is now, with this host's file of checkpoints.

    It takes about ten seconds for each million entries. Raises PermissionDenied.
    """
    call.require(Permission.AUDIT_READ)
    # Read the file first: its checkpoints are then in the database when the snapshot is taken.
    outside = await asyncio.to_thread(read_filed, hub.audit_file)
    async with hub.database.snapshot() as connection:
        report = await verify_database(connection, RingSigners(hub.ring).public, outside)
    call.entry.row_count = report.entries
    return report
