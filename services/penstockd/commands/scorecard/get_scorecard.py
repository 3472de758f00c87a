"""GetScorecard: the metrics by which the hub measures itself."""

from __future__ import annotations

from penstockd.calls import Call
from penstockd.hub import Hub
from penstockd.metering.scorecard import Scorecard, read_scorecard
from penstockd.policy.model import Permission


async def get_scorecard(hub: Hub, call: Call, days: int) -> Scorecard:
    """The scorecard of the last ``days``. Raises PermissionDenied, ValueInvalid."""
    call.require(Permission.USAGE_READ, Permission.AUDIT_READ)
    call.asked(days=days)
    async with hub.database.snapshot() as connection:
        return await read_scorecard(connection, days)
