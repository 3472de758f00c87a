"""ResumeWebhook: sends the deliveries that have gathered."""

from __future__ import annotations

from penstockd.calls import Call
from penstockd.hub import Hub
from penstockd.store.database import Connection
from penstockd.webhooks.endpoints import Stored, set_state
from penstockd.webhooks.model import State


async def resume_webhook(hub: Hub, call: Call, webhook_id: str) -> Stored:
    """Resume sending. Raises PermissionDenied, WebhookNotFound."""

    async def resume(connection: Connection) -> Stored:
        await hub.webhooks.touch(call, connection, webhook_id, lock=True)
        await set_state(connection, webhook_id, State.ACTIVE, "")
        return await hub.webhooks.show(call, connection, webhook_id)

    return await hub.webhooks.change(call, resume)
