"""Messages of the hub itself: what it has to tell the owners and receivers of webhooks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import orjson

from penstockd.store.cursor import read_extent
from penstockd.store.database import Connection
from penstockd.store.places import Places
from penstockd.webhooks.endpoints import Endpoint
from penstockd.webhooks.model import Cause, DeliveryState, Reason, State, Webhook
from penstockd.webhooks.queue import Draft, put_deliveries

#: The database has gone back in time: what a receiver was told may be undone.
UNDONE = "changes.undone"


async def keep_notice(
    connection: Connection, webhook: Webhook, kind: str, content: Mapping[str, Any], at: datetime
) -> None:
    """Keep a notice for the owner of a webhook, to be listed."""
    await connection.execute(
        "INSERT INTO hub.webhook_notice (consumer_id, webhook_id, type, data, create_time)"
        " VALUES ($1, $2, $3, $4, $5)",
        webhook.consumer_id,
        webhook.webhook_id,
        kind,
        orjson.dumps(content).decode(),
        at,
    )


async def tell_undone(
    connection: Connection, endpoints: Sequence[Endpoint], places: Places, at: datetime
) -> None:
    """Tell every receiver once that the database has gone back in time.

    The message has the epoch and a cursor: what a receiver reads anew at this cursor or behind it
    holds nothing of what was undone, and changes go on from there.
    """
    cursor = (await read_extent(connection)).newest
    epoch, begin_time = await connection.fetchrow(  # type: ignore[misc]
        "SELECT epoch, begin_time FROM hub.epoch ORDER BY epoch DESC LIMIT 1"
    )
    drafts = []
    for webhook in (endpoint.webhook for endpoint in endpoints):
        content = {
            "webhookId": webhook.webhook_id,
            "epoch": str(epoch),
            "revision": str(places.sequences.sequence(cursor.number)),
            "cursor": places.seal(cursor),
            "reconcile": "REPAIR",
        }
        await keep_notice(connection, webhook, UNDONE, content, at)
        dead = webhook.state is State.DISABLED
        drafts.append(
            Draft(
                webhook.webhook_id,
                Cause.NOTICE,
                UNDONE,
                begin_time,
                notice=content,
                state=DeliveryState.DEAD if dead else DeliveryState.PENDING,
                reason=Reason.ENDPOINT_DISABLED.value if dead else "",
            )
        )
    if drafts:
        await put_deliveries(connection, drafts, at)
    await connection.execute("UPDATE hub.webhook_head SET epoch = $1", epoch)
