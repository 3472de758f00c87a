"""ReleaseLease: a worker gives back the changes that it leased."""

from __future__ import annotations

from penstockd.calls import Call
from penstockd.hub import Hub
from penstockd.subscriptions.extend import prolong_lease
from penstockd.subscriptions.manage import check_reader


async def release_lease(hub: Hub, call: Call, subscription_id: str, lease_id: str) -> None:
    """End a lease, so that its changes go to the next worker that asks.

    Raises what ``prolong_lease`` does.
    """
    check_reader(hub, call)
    await prolong_lease(hub, call, subscription_id, lease_id, 0)
