"""TestWebhook: a test event, sent like any other."""

from __future__ import annotations

from penstockd.calls import Call
from penstockd.hub import Hub
from penstockd.store.database import Connection
from penstockd.webhooks.messages import TEST
from penstockd.webhooks.model import Cause, read_clock
from penstockd.webhooks.queue import Draft, put_deliveries
from penstockd.webhooks.search import Listed, find_delivery


async def send_test(hub: Hub, call: Call, webhook_id: str) -> Listed:
    """The delivery of a test event. Raises PermissionDenied, WebhookNotFound, WebhookDisabled."""

    async def test(connection: Connection) -> Listed:
        await hub.webhooks.touch_enabled(call, connection, webhook_id)
        data = {"webhookId": webhook_id, "message": "It works."}
        draft = Draft(webhook_id, Cause.TEST, TEST, read_clock(), notice=data)
        (delivery_id,) = await put_deliveries(connection, [draft], read_clock())
        await hub.webhooks.announce(connection)
        return await find_delivery(connection, webhook_id, delivery_id)

    return await hub.webhooks.change(call, test)
