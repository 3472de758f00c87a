"""Deliveries of a webhook, and what was given up of all of them."""

from __future__ import annotations

from collections.abc import Sequence

from penstockd.calls import Call
from penstockd.commands.webhooks.asking import TO_READ, check_reach, found, reads
from penstockd.hub import Hub
from penstockd.paging import Paging
from penstockd.webhooks.endpoints import read_webhooks
from penstockd.webhooks.model import Webhook
from penstockd.webhooks.search import Filter, Listed
from penstockd.webhooks.search import list_deliveries as search

_ALL = 10_000


async def list_deliveries(
    hub: Hub, call: Call, webhook_id: str, wanted: Filter, page_size: int, page_token: str
) -> tuple[list[Listed], str]:
    """A page of deliveries and the token of the next.

    Who may not itself read what the webhook tells is shown no keys. Raises WebhookNotFound, and
    PermissionDenied also if such a caller asks for a key.
    """
    call.require(*TO_READ)
    paging = Paging(
        hub.page_tokens, call, f"deliveries/{webhook_id}/{wanted}", page_size, page_token
    )
    async with hub.database.connection() as connection:
        webhook = await found(hub, call, connection, webhook_id)
        if wanted.key:
            check_reach(hub, call, webhook)
        rows = await search(connection, [webhook_id], wanted, paging.after(""), paging.limit)
    page, token = paging.cut(rows, lambda d: d.delivery_id)
    return _shown(hub, call, [webhook], page), token


async def list_dead_letters(
    hub: Hub, call: Call, wanted: Filter, page_size: int, page_token: str
) -> tuple[list[Listed], str]:
    """A page of what was given up of the caller's webhooks. Raises PermissionDenied."""
    call.require(*TO_READ)
    owner = call.principal.consumer_id
    paging = Paging(hub.page_tokens, call, f"dead-letters/{wanted}", page_size, page_token)
    async with hub.database.connection() as connection:
        own = await read_webhooks(connection, owner, "", _ALL, hub.webhooks.seal)
        names = [w.webhook_id for w in own]
        rows = await search(connection, names, wanted, paging.after(""), paging.limit)
    page, token = paging.cut(rows, lambda d: d.delivery_id)
    return _shown(hub, call, own, page), token


def _shown(
    hub: Hub, call: Call, webhooks: Sequence[Webhook], found: Sequence[Listed]
) -> list[Listed]:
    """Deliveries without keys where the caller may not itself read what their webhook tells."""
    open_ = {w.webhook_id for w in webhooks if reads(hub, call, w)}
    return [d if d.values["webhook_id"] in open_ else d.withheld() for d in found]
