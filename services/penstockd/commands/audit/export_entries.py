"""ExportEntries: a copy of the audit that can be verified away from the hub."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable
from contextlib import aclosing

from penstockd.audit.copy import Written, parse_day, write_copy
from penstockd.calls import Call
from penstockd.errors import ClientStalled, Refused
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
    written, outcome, stall = Written(), "CANCELLED", hub.exports.stall_seconds
    try:
        async with (
            hub.database.snapshot() as connection,
            aclosing(write_copy(connection, first, last, written)) as pieces,
        ):
            async for piece in pieces:
                try:
                    async with asyncio.timeout(stall):
                        await send(piece)
                except TimeoutError as exc:
                    raise ClientStalled(f"the client took no data for {stall:g} s") from exc
        outcome = "OK"
    except Refused as exc:
        outcome = exc.reason
        raise
    finally:
        if call.recorded:
            await call.finish(call.record_end(outcome, written.entries, written.size))
