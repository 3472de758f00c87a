"""GetWebhook: one webhook, with its secrets."""

from __future__ import annotations

from penstockd.calls import Call
from penstockd.hub import Hub
from penstockd.webhooks.desk import TO_READ
from penstockd.webhooks.endpoints import Stored


async def get_webhook(hub: Hub, call: Call, webhook_id: str) -> Stored:
    """One webhook. Raises PermissionDenied, WebhookNotFound."""
    call.require(*TO_READ)
    async with hub.database.connection() as connection:
        webhook = await hub.webhooks.find(call, connection, webhook_id)
        call.entry.row_count = 1
        return await hub.webhooks.describe(call, connection, webhook)
