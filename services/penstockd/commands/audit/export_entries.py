"""ExportEntries: a copy of the audit that can be verified away from the hub."""

from __future__ import annotations

import datetime as dt
from collections.abc import Awaitable, Callable
from contextlib import aclosing

from penstockd.audit.copy import Written, parse_day, write_copy
from penstockd.calls import Call
from penstockd.exports.documents import sending_document
from penstockd.hub import Hub
from penstockd.policy.model import Permission


async def export_entries(
    hub: Hub, call: Call, start: str, end: str, send: Callable[[bytes], Awaitable[None]]
) -> None:
    """Send the chains of some days (such as "2025-03-01"), of one state, in pieces of whole lines.

    An empty ``start`` or ``end`` leaves that end open. Raises PermissionDenied and ValueInvalid
    before anything is sent; ClientStalled and DatabaseUnavailable also after that. A copy without
    its last line is incomplete.
    """
    call.require(Permission.AUDIT_EXPORT)
    call.asked(start_day=start, end_day=end)
    first = parse_day("start_day", start, dt.date(1970, 1, 1))
    last = parse_day("end_day", end, dt.date(9999, 1, 1))
    if call.headers_only:
        return
    written, sent = Written(), 0
    async with (
        sending_document(call, hub.exports.stall_seconds, send) as send_piece,
        hub.database.snapshot() as connection,
        aclosing(write_copy(connection, first, last, written)) as pieces,
    ):
        async for piece in pieces:
            await send_piece(piece, written.entries - sent)
            sent = written.entries
