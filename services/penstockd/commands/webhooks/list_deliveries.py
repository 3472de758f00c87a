"""Deliveries of a webhook, and what was given up of all of them."""

from __future__ import annotations

from penstockd.commands.access.pages import Paging
from penstockd.commands.context import Call, Hub
from penstockd.commands.webhooks.asking import found, reader
from penstockd.webhooks.endpoints import read_webhooks
from penstockd.webhooks.search import Filter, Listed
from penstockd.webhooks.search import list_deliveries as search

_ALL = 10_000


async def list_deliveries(
    hub: Hub, call: Call, webhook_id: str, wanted: Filter, page_size: int, page_token: str
) -> tuple[list[Listed], str]:
    """A page of deliveries and the token of the next. Raises PermissionDenied, WebhookNotFound."""
    reader(call)
    paging = Paging(hub, call, f"deliveries/{webhook_id}/{wanted}", page_size, page_token)
    before = paging.position[0] if paging.position else ""
    async with hub.database.connection() as connection:
        await found(hub, call, connection, webhook_id)
        rows = await search(connection, [webhook_id], wanted, before, paging.limit)
    return paging.cut(rows, lambda d: d.delivery_id)


async def list_dead_letters(
    hub: Hub, call: Call, wanted: Filter, page_size: int, page_token: str
) -> tuple[list[Listed], str]:
    """A page of what was given up of the caller's webhooks. Raises PermissionDenied."""
    principal = reader(call)
    paging = Paging(hub, call, f"dead-letters/{wanted}", page_size, page_token)
    before = paging.position[0] if paging.position else ""
    async with hub.database.connection() as connection:
        own = await read_webhooks(connection, principal.consumer_id, "", _ALL, hub.webhooks.seal)
        names = [w.webhook_id for w in own]
        rows = await search(connection, names, wanted, before, paging.limit)
    return paging.cut(rows, lambda d: d.delivery_id)
