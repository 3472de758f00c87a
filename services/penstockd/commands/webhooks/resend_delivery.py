"""Deliveries are sent again: one, or all that were given up in a time."""

from __future__ import annotations

from datetime import datetime

from penstockd.calls import Call
from penstockd.commands.webhooks.asking import TO_WRITE, changed, touched
from penstockd.errors import DeliveryNotFound, ValueInvalid, Violation, WebhookDisabled
from penstockd.hub import Hub
from penstockd.store.database import Connection
from penstockd.webhooks.endpoints import announce
from penstockd.webhooks.model import State, Webhook
from penstockd.webhooks.queue import recover, resend
from penstockd.webhooks.schedule import now
from penstockd.webhooks.search import Listed, find_delivery


async def resend_delivery(hub: Hub, call: Call, webhook_id: str, delivery_id: str) -> Listed:
    """Send a delivery again, under its id; one that is on its way is left to itself.

    Raises PermissionDenied, WebhookNotFound, DeliveryNotFound, WebhookDisabled.
    """

    async def send(connection: Connection) -> Listed:
        _on(await touched(hub, call, connection, webhook_id, lock=True))
        call.entry.record_key = f"webhooks/{webhook_id}/deliveries/{delivery_id}"
        await resend(connection, webhook_id, delivery_id, now())
        listed = await find_delivery(connection, webhook_id, delivery_id)
        if listed is None:
            raise DeliveryNotFound(f"there is no delivery '{delivery_id}'")
        await announce(connection)
        return listed

    return await changed(hub, call, send)


async def recover_deliveries(
    hub: Hub, call: Call, webhook_id: str, start: datetime | None, end: datetime | None
) -> int:
    """Send all dead deliveries of a time again; returns how many.

    Raises PermissionDenied, ValueInvalid without a start, WebhookNotFound, WebhookDisabled.
    """
    call.require(*TO_WRITE)
    if start is None:
        violation = Violation("start_time", "is required")
        raise ValueInvalid("start_time is required", violations=[violation])

    async def send(connection: Connection) -> int:
        _on(await touched(hub, call, connection, webhook_id, lock=True))
        count = await recover(connection, webhook_id, now(), start, end)
        call.asked(start_time=start.isoformat(), end_time=end.isoformat() if end else "")
        call.entry.row_count = count
        await announce(connection)
        return count

    return await changed(hub, call, send)


def _on(webhook: Webhook) -> None:
    if webhook.state is State.DISABLED:
        raise WebhookDisabled(f"the webhook is disabled: {webhook.reason}; resume it first")
