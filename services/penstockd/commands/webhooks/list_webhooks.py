"""ListWebhooks: the caller's, or everybody's."""

from __future__ import annotations

from penstockd.calls import Call
from penstockd.commands.access.pages import Paging
from penstockd.commands.webhooks.asking import TO_READ
from penstockd.hub import Hub
from penstockd.policy.model import Permission
from penstockd.webhooks.endpoints import read_webhooks
from penstockd.webhooks.stored import Stored, read_stored


async def list_webhooks(
    hub: Hub, call: Call, page_size: int, page_token: str, *, everybody: bool
) -> tuple[list[Stored], str]:
    """A page of webhooks, the caller's or everybody's, and the token of the next.

    Raises PermissionDenied.
    """
    call.require(*TO_READ)
    if everybody:
        call.require(Permission.ACCESS_WRITE)
    paging = Paging(hub, call, f"webhooks/{everybody}", page_size, page_token)
    after = paging.position[0] if paging.position else ""
    owner = None if everybody else call.principal.consumer_id
    async with hub.database.connection() as connection:
        page, token = paging.cut(
            await read_webhooks(connection, owner, after, paging.limit, hub.webhooks.seal),
            lambda w: w.webhook_id,
        )
        return [await read_stored(connection, hub.webhooks.seal, w) for w in page], token
