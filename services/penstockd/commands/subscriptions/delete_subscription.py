"""DeleteSubscription: removes a subscription's position and leases."""

from __future__ import annotations

from penstockd.calls import Call
from penstockd.hub import Hub
from penstockd.store import subscriptions as store
from penstockd.store.database import Connection
from penstockd.subscriptions.manage import changing, check_reader, found, owner


async def delete_subscription(hub: Hub, call: Call, subscription_id: str) -> None:
    """Delete a subscription of the caller. Raises SubscriptionNotFound and PermissionDenied."""
    check_reader(hub, call)

    async def work(connection: Connection) -> None:
        await found(call, connection, subscription_id)
        await store.delete(connection, owner(call), subscription_id)

    await changing(hub, call, subscription_id, work)
