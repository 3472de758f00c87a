"""The time that a worker has for its lease."""

from __future__ import annotations

from penstockd.calls import Call
from penstockd.store import leases
from penstockd.store.database import Connection, Database
from penstockd.store.leases import Lease
from penstockd.store.places import Places
from penstockd.subscriptions.manage import (
    changing,
    found,
    named_lease,
    owner,
)


async def extend(
    database: Database,
    places: Places,
    call: Call,
    subscription_id: str,
    lease_id: str,
    seconds: int,
) -> Lease:
    """Let a lease run for so many seconds from now; see ``extend_lease`` for errors."""
    call.asked(lease=lease_id[:64], ack_seconds=seconds)
    lease = named_lease(places, lease_id)

    async def work(connection: Connection) -> Lease:
        await found(call, connection, subscription_id)
        held = await leases.hold(connection, owner(call), subscription_id)
        return await held.extend(lease, seconds)

    return await changing(database, call, subscription_id, work)
