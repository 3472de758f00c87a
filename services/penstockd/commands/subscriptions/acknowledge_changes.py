"""AcknowledgeChanges: a worker has handled the changes that it leased."""

from __future__ import annotations

from penstockd.calls import Call
from penstockd.errors import ValueInvalid, Violation
from penstockd.hub import Hub
from penstockd.store import leases
from penstockd.store.cursor import Cursor
from penstockd.store.database import Connection
from penstockd.subscriptions.manage import check_reader, find_own, named_lease, owner_of, run_change


async def acknowledge_changes(
    hub: Hub, call: Call, subscription_id: str, lease_id: str, cursor: str
) -> Cursor:
    """Acknowledge a lease, or all changes up to a lease's cursor; return the position up to which
    everything is acknowledged.

    Raises ValueInvalid, SubscriptionNotFound, PermissionDenied, LeaseUnknown, LeaseExpired,
    AcknowledgedBackwards and CursorInvalid.
    """
    check_reader(hub, call)
    if bool(lease_id) == bool(cursor):
        problem = "either lease_id or cursor must be given"
        raise ValueInvalid(problem, violations=[Violation("lease_id", problem)])
    call.asked(lease=lease_id[:64], cursor=cursor[:200])

    async def work(connection: Connection) -> Cursor:
        await find_own(call, connection, subscription_id)
        # A caller that may not use the subscription must not learn whether it has such a place.
        place = hub.places.open(cursor) if cursor else None
        lease = named_lease(hub.places, lease_id) if lease_id else ""
        held = await leases.lock_subscription(connection, owner_of(call), subscription_id)
        if place is not None:
            return await held.acknowledge_to(place)
        return await held.acknowledge(lease)

    return await run_change(hub, call, subscription_id, work)
