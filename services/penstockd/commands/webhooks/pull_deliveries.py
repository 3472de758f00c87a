"""PullDeliveries: messages for a developer's machine, pulled by a command there."""

from __future__ import annotations

from datetime import timedelta

from penstockd.calls import Call
from penstockd.hub import Hub
from penstockd.webhooks.pulling import MAX_DELIVERIES, Pulled, pull_due, wait_in_line

MAX_WAIT = timedelta(seconds=20)


async def pull_deliveries(
    hub: Hub, call: Call, webhook_id: str, most: int, wait: timedelta
) -> list[Pulled]:
    """Messages that are due; waits a while if there are none at once.

    Each look judges the caller by the current policy. Raises WebhookNotFound, WebhookKindUnfit,
    AccessRevoked (while it waited), PolicyStale, and PermissionDenied also for administrators who
    are not the owner.
    """
    most = min(max(most or 10, 1), MAX_DELIVERIES)
    seconds = min(wait, MAX_WAIT).total_seconds()

    async def pull() -> list[Pulled]:
        return await call.finish(pull_due(hub, call, webhook_id, most))

    pulled = await pull()
    if not pulled and seconds > 0:
        with hub.streams.one_more(call.entry.consumer_id or ""):
            pulled = await wait_in_line(hub, webhook_id, seconds, pull)
    call.entry.row_count = len(pulled)
    return pulled
