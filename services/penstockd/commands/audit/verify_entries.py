"""VerifyEntries: the hub verifies its own audit."""

from __future__ import annotations

import asyncio

from penstockd.audit.checkpoint import RingSigners, read_filed
from penstockd.audit.proof import verify_database
from penstockd.audit.search import Span
from penstockd.audit.stored_archives import ArchivedDays, find_archived
from penstockd.audit.verify import VerificationReport
from penstockd.calls import Call
from penstockd.hub import Hub
from penstockd.policy.model import Permission


async def verify_entries(hub: Hub, call: Call) -> tuple[VerificationReport, ArchivedDays | None]:
    """Verify the audit that the database holds now, with this host's file of checkpoints. Also
    returns the days that were archived and dropped.

    It takes about ten seconds for each million entries. Raises PermissionDenied.
    """
    call.require(Permission.AUDIT_READ)
    if call.headers_only:
        return VerificationReport([], 0, 0, 0, 0, 0.0), None
    # Read the file first: its checkpoints are then in the database when the snapshot is taken.
    outside = await asyncio.to_thread(read_filed, hub.audit_file)
    async with hub.database.snapshot() as connection:
        report = await verify_database(connection, RingSigners(hub.ring).public, outside)
        archived = await find_archived(connection, *Span().days)
    call.entry.row_count = report.entries
    return report, archived
