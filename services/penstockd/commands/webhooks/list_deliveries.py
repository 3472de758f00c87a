"""ListDeliveries: past and pending deliveries of a webhook."""

from __future__ import annotations

from penstockd.calls import Call
from penstockd.hub import Hub
from penstockd.paging import Paging
from penstockd.webhooks.desk import TO_READ
from penstockd.webhooks.search import Filter, Listed
from penstockd.webhooks.search import list_deliveries as search


async def list_deliveries(
    hub: Hub, call: Call, webhook_id: str, wanted: Filter, page_size: int, page_token: str
) -> tuple[list[Listed], str]:
    """A page of deliveries and the token of the next page.

    A caller that may not itself read the webhook's data is shown no keys. Raises WebhookNotFound,
    and PermissionDenied also if such a caller asks for a key.
    """
    call.require(*TO_READ)
    what = f"deliveries/{webhook_id}/{wanted}"
    paging = Paging(hub.page_tokens, call, what, page_size, page_token)
    async with hub.database.connection() as connection:
        webhook = await hub.webhooks.find(call, connection, webhook_id)
        if wanted.key:
            hub.webhooks.check_reach(call, webhook)
        rows = await search(connection, [webhook_id], wanted, paging.after(""), paging.limit)
    page, token = paging.cut(rows, lambda d: d.delivery_id)
    return hub.webhooks.withhold(call, [webhook], page), token
