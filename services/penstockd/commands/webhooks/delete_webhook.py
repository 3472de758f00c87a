"""DeleteWebhook: deletes a webhook with all its past and pending deliveries."""

from __future__ import annotations

from penstockd.calls import Call
from penstockd.hub import Hub
from penstockd.store.database import Connection
from penstockd.webhooks import endpoints


async def delete_webhook(hub: Hub, call: Call, webhook_id: str) -> None:
    """Delete a webhook. Raises PermissionDenied, WebhookNotFound."""

    async def delete(connection: Connection) -> None:
        await hub.webhooks.touch(call, connection, webhook_id, lock=True)
        await endpoints.delete_webhook(connection, webhook_id)

    await hub.webhooks.change(call, delete)
