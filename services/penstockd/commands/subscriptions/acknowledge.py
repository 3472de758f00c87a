"""What workers say of their leases: done, more time, not done."""

from __future__ import annotations

from penstockd.calls import Call
from penstockd.errors import ValueInvalid, Violation
from penstockd.hub import Hub
from penstockd.store import leases
from penstockd.store.cursor import Cursor
from penstockd.store.database import Connection
from penstockd.store.leases import Lease
from penstockd.subscriptions.manage import changing, found, owner
from penstockd.subscriptions.take import ack_time


async def acknowledge_changes(
    hub: Hub, call: Call, subscription_id: str, lease_id: str, cursor: str
) -> Cursor:
    """Acknowledge a lease, or all up to the cursor of one; returns how far all is acknowledged.

    Raises ValueInvalid, SubscriptionNotFound, PermissionDenied, LeaseUnknown, LeaseExpired,
    AcknowledgedBackwards and CursorInvalid.
    """
    if bool(lease_id) == bool(cursor):
        problem = "either lease_id or cursor must be given"
        raise ValueInvalid(problem, violations=[Violation("lease_id", problem)])
    call.asked(lease=lease_id[:64], cursor=cursor[:200])
    place = Cursor.parse(cursor) if cursor else None

    async def work(connection: Connection) -> Cursor:
        await found(call, connection, subscription_id)
        held = await leases.hold(connection, owner(call), subscription_id)
        if place is not None:
            return await held.acknowledge_to(place)
        return await held.acknowledge(lease_id)

    return await changing(hub, call, subscription_id, work)


async def extend_lease(
    hub: Hub, call: Call, subscription_id: str, lease_id: str, ack_seconds: int
) -> Lease:
    """Let a lease run for so many seconds from now.

    Raises ValueInvalid, SubscriptionNotFound, PermissionDenied, LeaseUnknown, LeaseExpired,
    AcknowledgedBackwards.
    """
    return await _extend(hub, call, subscription_id, lease_id, ack_time(ack_seconds))


async def release_lease(hub: Hub, call: Call, subscription_id: str, lease_id: str) -> None:
    """End a lease, so that its changes are given to whoever asks next. Raises the same."""
    await _extend(hub, call, subscription_id, lease_id, 0)


async def _extend(hub: Hub, call: Call, subscription_id: str, lease_id: str, seconds: int) -> Lease:
    call.asked(lease=lease_id[:64], ack_seconds=seconds)

    async def work(connection: Connection) -> Lease:
        await found(call, connection, subscription_id)
        held = await leases.hold(connection, owner(call), subscription_id)
        return await held.extend(lease_id, seconds)

    return await changing(hub, call, subscription_id, work)
