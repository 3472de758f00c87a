"""ExportScorecard: the scorecard as a file."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from penstockd.calls import Call
from penstockd.commands.scorecard.get_scorecard import get_scorecard
from penstockd.exports.documents import sending_document
from penstockd.hub import Hub
from penstockd.metering.scorecard_files import SCORECARDS


async def export_scorecard(
    hub: Hub, call: Call, days: int, form: str, send: Callable[[bytes], Awaitable[None]]
) -> None:
    """Send the file of a scorecard. Raises PermissionDenied, ValueInvalid, ClientStalled."""
    call.asked(format=form)
    scorecard = await get_scorecard(hub, call, days)
    if call.headers_only:
        return
    async with sending_document(call, hub.exports.stall_seconds, send) as send_piece:
        await send_piece(SCORECARDS[form](scorecard).encode(), len(scorecard.metrics))
