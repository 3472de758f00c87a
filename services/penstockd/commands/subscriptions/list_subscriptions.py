"""ListSubscriptions: the caller's subscriptions."""

from __future__ import annotations

from penstockd.calls import Call
from penstockd.hub import Hub
from penstockd.store import subscriptions as store
from penstockd.store.subscriptions import Subscription
from penstockd.subscriptions.manage import check_reader, owner, unread


async def list_subscriptions(hub: Hub, call: Call) -> list[Subscription]:
    """The caller's subscriptions to what its token may read."""
    check_reader(hub, call)
    async with hub.database.connection() as connection:
        every = await store.every(connection, owner(call))
    shown = [s for s in every if not unread(call, s)]
    call.entry.row_count = len(shown)
    return shown
