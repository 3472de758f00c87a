"""ExtendLease: a worker needs more time."""

from __future__ import annotations

from penstockd.calls import Call
from penstockd.hub import Hub
from penstockd.store.leases import Lease
from penstockd.subscriptions.extend import prolong_lease
from penstockd.subscriptions.manage import check_reader
from penstockd.subscriptions.take import ack_time


async def extend_lease(
    hub: Hub, call: Call, subscription_id: str, lease_id: str, ack_seconds: int
) -> Lease:
    """Let a lease run for so many seconds from now.

    Raises ValueInvalid, SubscriptionNotFound, PermissionDenied, LeaseUnknown, LeaseExpired,
    AcknowledgedBackwards.
    """
    check_reader(hub, call)
    return await prolong_lease(hub, call, subscription_id, lease_id, ack_time(ack_seconds))
