"""ListSubscriptions: the caller's subscriptions."""

from __future__ import annotations

from penstockd.calls import Call
from penstockd.hub import Hub
from penstockd.store import subscriptions as store
from penstockd.store.subscriptions import Subscription
from penstockd.subscriptions.manage import check_reader, first_unread, owner_of


async def list_subscriptions(hub: Hub, call: Call) -> list[Subscription]:
    """The caller's subscriptions to what its token may read."""
    check_reader(hub, call)
    async with hub.database.connection() as connection:
        every = await store.list_all(connection, owner_of(call))
    shown = [s for s in every if not first_unread(call, s)]
    call.entry.row_count = len(shown)
    return shown
