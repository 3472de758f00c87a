"""RecoverDeliveries: all that were given up in a time are sent again."""

from __future__ import annotations

from datetime import datetime

from penstockd.calls import Call
from penstockd.commands.webhooks.asking import TO_WRITE, changed, touched
from penstockd.errors import ValueInvalid, Violation
from penstockd.hub import Hub
from penstockd.store.database import Connection
from penstockd.webhooks.endpoints import announce_due, check_enabled
from penstockd.webhooks.queue import recover
from penstockd.webhooks.schedule import now


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
        check_enabled(await touched(hub, call, connection, webhook_id, lock=True))
        count = await recover(connection, webhook_id, now(), start, end)
        call.asked(start_time=start.isoformat(), end_time=end.isoformat() if end else "")
        call.entry.row_count = count
        await announce_due(hub.announcements, connection)
        return count

    return await changed(hub, call, send)
