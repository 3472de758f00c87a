"""GetWebhookMetrics: figures about the deliveries of a webhook."""

from __future__ import annotations

from datetime import datetime, timedelta

from penstockd.calls import Call
from penstockd.hub import Hub
from penstockd.webhooks.desk import TO_READ
from penstockd.webhooks.model import read_clock
from penstockd.webhooks.search import Figures, measure_deliveries

WINDOW = timedelta(days=1)


async def get_metrics(hub: Hub, call: Call, webhook_id: str, start: datetime | None) -> Figures:
    """Figures about the attempts since a time, by default of the last day.

    Raises PermissionDenied, WebhookNotFound.
    """
    call.require(*TO_READ)
    async with hub.database.connection() as connection:
        await hub.webhooks.find(call, connection, webhook_id)
        call.entry.row_count = 1
        return await measure_deliveries(connection, webhook_id, start or read_clock() - WINDOW)
