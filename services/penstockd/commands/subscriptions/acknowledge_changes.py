"""AcknowledgeChanges: a worker has done what it was given."""

from __future__ import annotations

from penstockd.calls import Call
from penstockd.errors import ValueInvalid, Violation
from penstockd.hub import Hub
from penstockd.store import leases
from penstockd.store.cursor import Cursor
from penstockd.store.database import Connection
from penstockd.subscriptions.manage import changing, check_reader, found, named_lease, owner


async def acknowledge_changes(
    hub: Hub, call: Call, subscription_id: str, lease_id: str, cursor: str
) -> Cursor:
    """Acknowledge a lease, or all up to the cursor of one; returns how far all is acknowledged.

    Raises ValueInvalid, SubscriptionNotFound, PermissionDenied, LeaseUnknown, LeaseExpired,
    AcknowledgedBackwards and CursorInvalid.
    """
    check_reader(hub, call)
    if bool(lease_id) == bool(cursor):
        problem = "either lease_id or cursor must be given"
        raise ValueInvalid(problem, violations=[Violation("lease_id", problem)])
    call.asked(lease=lease_id[:64], cursor=cursor[:200])

    async def work(connection: Connection) -> Cursor:
        await found(call, connection, subscription_id)
        # Who may not touch the subscription is not told whether there is such a place in it.
        place = hub.places.open(cursor) if cursor else None
        lease = named_lease(hub.places, lease_id) if lease_id else ""
        held = await leases.hold(connection, owner(call), subscription_id)
        if place is not None:
            return await held.acknowledge_to(place)
        return await held.acknowledge(lease)

    return await changing(hub, call, subscription_id, work)
