"""VerifyEntries: the audit proves itself."""

from __future__ import annotations

import asyncio

from penstockd.audit.checkpoint import read_filed
from penstockd.audit.proof import verify_database
from penstockd.audit.verify import VerificationReport
from penstockd.calls import Call
from penstockd.hub import Hub
from penstockd.policy.model import Permission


async def verify_entries(hub: Hub, call: Call) -> VerificationReport:
    """Verify all of the audit as it is now, with the file of checkpoints of this host.

    It takes some ten seconds for each million of entries. Raises PermissionDenied.
    """
    call.require(Permission.AUDIT_READ)
    # The file first: what stands in it when the snapshot is taken is in the database by then.
    outside = await asyncio.to_thread(read_filed, hub.audit_file)
    async with hub.database.snapshot() as connection:
        report = await verify_database(connection, [hub.audit_key], outside)
    call.entry.row_count = report.entries
    return report
