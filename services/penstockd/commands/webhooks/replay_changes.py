"""ReplayChanges: sends a stretch of the log to one webhook again."""

from __future__ import annotations

from penstockd.calls import Call
from penstockd.errors import ValueInvalid
from penstockd.hub import Hub
from penstockd.store.cursor import check_cursor
from penstockd.store.database import Connection
from penstockd.webhooks.desk import TO_WRITE
from penstockd.webhooks.endpoints import Stored, set_replay
from penstockd.webhooks.errors import ReplayUnderWay, WebhookDisabled
from penstockd.webhooks.model import State


async def replay_changes(
    hub: Hub, call: Call, webhook_id: str, cursor: str, end_cursor: str
) -> Stored:
    """Begin a replay of the changes after one cursor up to another, or to the log's end.

    Raises PermissionDenied, WebhookNotFound, WebhookDisabled, ReplayUnderWay, CursorInvalid,
    CursorExpired, ValueInvalid if it ends before it begins.
    """
    call.require(*TO_WRITE)
    start = hub.places.open(cursor)
    end = hub.places.open(end_cursor) if end_cursor else None

    async def replay(connection: Connection) -> Stored:
        webhook = await hub.webhooks.touch(call, connection, webhook_id, lock=True)
        if webhook.state is State.DISABLED:
            raise WebhookDisabled(f"the webhook is disabled: {webhook.reason}; resume it first")
        if webhook.replay_end is not None:
            raise ReplayUnderWay("a replay to the webhook is under way")
        log = await check_cursor(connection, start)
        if end is not None:
            await check_cursor(connection, end)
        last = end.number if end is not None else log.head
        if last < start.number:
            raise ValueInvalid.of("end_cursor", "is before cursor")
        call.asked(cursor=cursor, end_cursor=end_cursor)
        await set_replay(connection, webhook_id, start.number, last)
        return await hub.webhooks.show(call, connection, webhook_id)

    return await hub.webhooks.change(call, replay)
