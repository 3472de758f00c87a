"""DeleteSubscription: removes a subscription's position and leases."""

from __future__ import annotations

from penstockd.calls import Call
from penstockd.hub import Hub
from penstockd.store import subscriptions as store
from penstockd.store.database import Connection
from penstockd.subscriptions.manage import check_reader, find_own, owner_of, run_change


async def delete_subscription(hub: Hub, call: Call, subscription_id: str) -> None:
    """Delete a subscription of the caller. Raises SubscriptionNotFound and PermissionDenied."""
    check_reader(hub, call)

    async def work(connection: Connection) -> None:
        await find_own(call, connection, subscription_id)
        await store.remove_subscription(connection, owner_of(call), subscription_id)

    await run_change(hub, call, subscription_id, work)
