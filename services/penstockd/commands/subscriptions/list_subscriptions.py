"""ListSubscriptions: the caller's subscriptions."""

from __future__ import annotations

from penstockd.calls import Call
from penstockd.hub import Hub
from penstockd.paging import Paging
from penstockd.store.subscriptions import Subscription, list_some
from penstockd.subscriptions.manage import check_reader, first_unread, owner_of


async def list_subscriptions(
    hub: Hub, call: Call, page_size: int, page_token: str
) -> tuple[list[Subscription], str]:
    """A page of the subscriptions to what the token may read, and the next page's token."""
    check_reader(hub, call)
    paging = Paging(hub.page_tokens, call, "subscriptions", page_size, page_token)
    async with hub.database.connection() as connection:
        found = await list_some(connection, owner_of(call), paging.after(""), paging.limit)
    return paging.cut(found, lambda s: s.subscription_id, lambda s: not first_unread(call, s))
