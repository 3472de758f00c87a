"""GetDelivery: one delivery, with its attempts and the body that would be sent now."""

from __future__ import annotations

from penstockd.calls import Call
from penstockd.hub import Hub
from penstockd.webhooks.desk import TO_READ
from penstockd.webhooks.endpoints import Endpoint
from penstockd.webhooks.search import Listed, Tried, find_delivery, list_attempts, read_deliveries
from penstockd.webhooks.signing import Signer


async def get_delivery(
    hub: Hub, call: Call, webhook_id: str, delivery_id: str
) -> tuple[Listed, list[Tried], bytes]:
    """The delivery, its attempts, and its body, empty if the owner may see nothing of it now.

    Only the owner is shown the body, which is made through the owner's View. A caller that may not
    itself read the webhook's data is shown no body, no key, and nothing that was sent or answered.
    Raises PermissionDenied, WebhookNotFound, DeliveryNotFound.
    """
    call.require(*TO_READ)
    async with call.writing(hub.database.transaction()) as connection:
        webhook = await hub.webhooks.find(call, connection, webhook_id)
        # Read attempts first: the delivery then reflects the outcome of every attempt shown.
        attempts = await list_attempts(connection, delivery_id)
        listed = await find_delivery(connection, webhook_id, delivery_id)
        body = b""
        if not hub.webhooks.reads(call, webhook):
            listed, attempts = listed.withheld(), [a.withheld() for a in attempts]
        elif webhook.consumer_id == call.principal.consumer_id:
            found = await read_deliveries(connection, webhook_id, [delivery_id])
            endpoint = Endpoint(webhook, (), Signer(()))
            composed, _ = await hub.webhooks.compose(call, connection, endpoint, found)
            body = composed[0].message.body if composed else b""
    call.entry.row_count = 1
    return listed, attempts, body
