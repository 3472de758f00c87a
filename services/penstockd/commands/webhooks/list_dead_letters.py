"""ListDeadLetters: abandoned deliveries of all the caller's webhooks."""

from __future__ import annotations

from penstockd.calls import Call
from penstockd.hub import Hub
from penstockd.paging import Paging
from penstockd.webhooks.desk import TO_READ
from penstockd.webhooks.endpoints import read_webhooks
from penstockd.webhooks.search import Filter, Listed, list_deliveries

_ALL = 10_000


async def list_dead_letters(
    hub: Hub, call: Call, wanted: Filter, page_size: int, page_token: str
) -> tuple[list[Listed], str]:
    """A page of abandoned deliveries and the token of the next page. Raises PermissionDenied."""
    call.require(*TO_READ)
    what, owner = f"dead-letters/{wanted}", call.principal.consumer_id
    paging = Paging(hub.page_tokens, call, what, page_size, page_token)
    async with hub.database.connection() as connection:
        own = await read_webhooks(connection, owner, "", _ALL, hub.webhooks.seal)
        names = [w.webhook_id for w in own]
        rows = await list_deliveries(connection, names, wanted, paging.after(""), paging.limit)
    page, token = paging.cut(rows, lambda d: d.delivery_id)
    return hub.webhooks.withhold(call, own, page), token
