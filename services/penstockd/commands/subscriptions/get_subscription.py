"""GetSubscription: one of the caller's subscriptions."""

from __future__ import annotations

from penstockd.calls import Call
from penstockd.hub import Hub
from penstockd.store.subscriptions import Subscription
from penstockd.subscriptions.manage import check_id, check_reader, find_own


async def get_subscription(hub: Hub, call: Call, subscription_id: str) -> Subscription:
    """One of the caller's subscriptions. Raises SubscriptionNotFound and PermissionDenied."""
    check_reader(hub, call)
    call.entry.record_key = check_id(subscription_id)
    async with hub.database.connection() as connection:
        return await find_own(call, connection, subscription_id)
