"""RecoverDeliveries: resends all deliveries abandoned within a time range."""

from __future__ import annotations

from datetime import datetime

from penstockd.calls import Call
from penstockd.errors import ValueInvalid
from penstockd.hub import Hub
from penstockd.store.database import Connection
from penstockd.webhooks.desk import TO_WRITE
from penstockd.webhooks.model import read_clock
from penstockd.webhooks.queue import requeue_dead


async def recover_deliveries(
    hub: Hub, call: Call, webhook_id: str, start: datetime | None, end: datetime | None
) -> int:
    """Resend all dead deliveries of a time range; return how many there are.

    Raises PermissionDenied, ValueInvalid without a start, WebhookNotFound, WebhookDisabled.
    """
    call.require(*TO_WRITE)
    if start is None:
        raise ValueInvalid.of("start_time", "is required")

    async def send(connection: Connection) -> int:
        await hub.webhooks.touch_enabled(call, connection, webhook_id)
        count = await requeue_dead(connection, webhook_id, read_clock(), start, end)
        call.asked(start_time=start.isoformat(), end_time=end.isoformat() if end else "")
        call.entry.row_count = count
        await hub.webhooks.announce(connection)
        return count

    return await hub.webhooks.change(call, send)
