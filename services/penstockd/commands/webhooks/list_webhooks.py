"""ListWebhooks: the caller's, or everybody's."""

from __future__ import annotations

from penstockd.calls import Call
from penstockd.hub import Hub
from penstockd.paging import Paging
from penstockd.policy.model import Permission
from penstockd.webhooks.desk import TO_READ
from penstockd.webhooks.endpoints import Stored, read_webhooks


async def list_webhooks(
    hub: Hub, call: Call, page_size: int, page_token: str, *, everybody: bool
) -> tuple[list[Stored], str]:
    """A page of webhooks, the caller's or everybody's, and the token of the next page.

    Raises PermissionDenied.
    """
    call.require(*TO_READ)
    if everybody:
        call.require(Permission.ACCESS_WRITE)
    paging = Paging(hub.page_tokens, call, f"webhooks/{everybody}", page_size, page_token)
    owner = None if everybody else call.principal.consumer_id
    async with hub.database.connection() as connection:
        page, token = paging.cut(
            await read_webhooks(
                connection, owner, paging.after(""), paging.limit, hub.webhooks.seal
            ),
            lambda w: w.webhook_id,
        )
        return [await hub.webhooks.describe(call, connection, w) for w in page], token
