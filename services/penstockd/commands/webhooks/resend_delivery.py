"""ResendDelivery: sends one delivery again."""

from __future__ import annotations

from penstockd.calls import Call
from penstockd.hub import Hub
from penstockd.store.database import Connection
from penstockd.webhooks.model import read_clock
from penstockd.webhooks.queue import requeue_delivery
from penstockd.webhooks.search import Listed, find_delivery


async def resend_delivery(hub: Hub, call: Call, webhook_id: str, delivery_id: str) -> Listed:
    """Send a delivery again, under the same id; one that is on its way is left alone.

    Raises PermissionDenied, WebhookNotFound, DeliveryNotFound, WebhookDisabled.
    """

    async def send(connection: Connection) -> Listed:
        await hub.webhooks.touch_enabled(call, connection, webhook_id)
        call.entry.record_key = f"webhooks/{webhook_id}/deliveries/{delivery_id}"
        await requeue_delivery(connection, webhook_id, delivery_id, read_clock())
        await hub.webhooks.announce(connection)
        return await find_delivery(connection, webhook_id, delivery_id)

    return await hub.webhooks.change(call, send)
