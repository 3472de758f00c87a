"""ExportEntries: a copy of the audit that can be verified away from the hub."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Awaitable, Callable
from contextlib import aclosing

from penstockd.audit.copy import Written, write_copy
from penstockd.calls import Call
from penstockd.errors import ClientStalled, Refused, ValueInvalid, Violation
from penstockd.hub import Hub
from penstockd.policy.model import Permission


async def export_entries(
    hub: Hub, call: Call, start: str, end: str, send: Callable[[bytes], Awaitable[None]]
) -> None:
    """Send the chains of the days, given as "2025-03-01", of one state, in pieces of whole lines.

    An empty ``start`` or ``end`` leaves that end open. Raises PermissionDenied and ValueInvalid
    before anything is sent; ClientStalled and DatabaseUnavailable also after that. A copy without
    its last line is not whole.
    """
    call.require(Permission.AUDIT_EXPORT)
    call.asked(start_day=start, end_day=end)
    first = _day("start_day", start, dt.date(1970, 1, 1))
    last = _day("end_day", end, dt.date(9999, 1, 1))
    written = Written()
    outcome = "CANCELLED"
    try:
        async with (
            hub.database.snapshot() as connection,
            aclosing(write_copy(connection, first, last, written)) as pieces,
        ):
            async for piece in pieces:
                await _send(hub, send, piece)
        outcome = "OK"
    except Refused as exc:
        outcome = exc.reason
        raise
    finally:
        if call.recorded:
            end_entry = call.entry.end(outcome, written.entries, written.size)
            await hub.tasks.run(hub.journal.record(end_entry))


async def _send(hub: Hub, send: Callable[[bytes], Awaitable[None]], piece: bytes) -> None:
    stall = hub.exports.stall_seconds
    try:
        async with asyncio.timeout(stall):
            await send(piece)
    except TimeoutError as exc:
        raise ClientStalled(f"the client took no data for {stall:g} s") from exc


def _day(name: str, text: str, otherwise: dt.date) -> dt.date:
    try:
        return dt.date.fromisoformat(text) if text else otherwise
    except ValueError as exc:
        message = f"{name}: '{text[:40]}' is not a day, as 2025-03-01"
        violation = Violation(name, "is not a day, as 2025-03-01")
        raise ValueInvalid(message, violations=[violation]) from exc
