"""ExportUsage: a report of usage as a file."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from penstockd.access.usage import narrow_question
from penstockd.calls import Call
from penstockd.errors import ValueInvalid
from penstockd.exports.documents import sending_document
from penstockd.hub import Hub
from penstockd.metering.files import write_report
from penstockd.metering.report import UsageQuestion, report_usage

Send = Callable[[bytes], Awaitable[None]]

#: The most rows of a file.
MAX_ROWS = 50_000
#: What a client must take within the time for which it may stall.
PIECE_BYTES = 256 * 1024


async def export_usage(
    hub: Hub, call: Call, question: UsageQuestion, form: str, send: Send
) -> None:
    """Send the file of a report in a format (see ``metering.files``).

    Raises PermissionDenied and ValueInvalid before anything is sent, and ClientStalled.
    """
    call.asked(**question.said, format=form)
    question = narrow_question(call, question)
    async with hub.database.connection() as connection:
        report = await report_usage(connection, question, MAX_ROWS + 1, 0)
    if len(report.rows) > MAX_ROWS:
        raise ValueInvalid.of(
            "group_by", f"the report has more than {MAX_ROWS:,} rows; group by less"
        )
    if call.headers_only:
        return
    data = await asyncio.to_thread(write_report, form, question, report.rows)
    async with sending_document(call, hub.exports.stall_seconds, send) as send_piece:
        for at in range(0, len(data) or 1, PIECE_BYTES):
            last = at + PIECE_BYTES >= len(data)
            await send_piece(data[at : at + PIECE_BYTES], len(report.rows) if last else 0)
