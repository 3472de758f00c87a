"""Extends leases."""

from __future__ import annotations

from penstockd.calls import Call
from penstockd.store import leases
from penstockd.store.database import Connection
from penstockd.store.leases import Lease
from penstockd.subscriptions.manage import (
    SubscriptionOrgans,
    find_own,
    named_lease,
    owner_of,
    run_change,
)


async def prolong_lease(
    organs: SubscriptionOrgans, call: Call, subscription_id: str, lease_id: str, seconds: int
) -> Lease:
    """Let a lease run for the given seconds from now; see ``extend_lease`` for errors."""
    call.asked(lease=lease_id[:64], ack_seconds=seconds)

    async def work(connection: Connection) -> Lease:
        await find_own(call, connection, subscription_id)
        lease = named_lease(organs.places, lease_id)
        held = await leases.lock_subscription(connection, owner_of(call), subscription_id)
        return await held.extend(lease, seconds)

    return await run_change(organs, call, subscription_id, work)
