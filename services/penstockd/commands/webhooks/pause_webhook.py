"""PauseWebhook: stops sending without losing any delivery."""

from __future__ import annotations

from penstockd.calls import Call
from penstockd.hub import Hub
from penstockd.store.database import Connection
from penstockd.webhooks.endpoints import Stored, set_state
from penstockd.webhooks.errors import WebhookDisabled
from penstockd.webhooks.model import State


async def pause_webhook(hub: Hub, call: Call, webhook_id: str) -> Stored:
    """Send nothing until it is resumed. Raises PermissionDenied, WebhookNotFound, WebhookDisabled.

    Deliveries that are on their way still arrive.
    """

    async def pause(connection: Connection) -> Stored:
        webhook = await hub.webhooks.touch(call, connection, webhook_id, lock=True)
        if webhook.state is State.DISABLED:
            raise WebhookDisabled(f"the webhook is disabled: {webhook.reason}")
        await set_state(connection, webhook_id, State.PAUSED, "")
        return await hub.webhooks.show(call, connection, webhook_id)

    return await hub.webhooks.change(call, pause)
