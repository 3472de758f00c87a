"""ResetSubscription: moves a subscription to another position."""

from __future__ import annotations

from penstockd.calls import Call
from penstockd.commands.subscriptions.get_subscription import get_subscription
from penstockd.hub import Hub
from penstockd.store import leases
from penstockd.store import subscriptions as store
from penstockd.store.database import Connection
from penstockd.store.subscriptions import Subscription
from penstockd.subscriptions.manage import (
    check_reader,
    find_start,
    open_source,
    owner_of,
    run_change,
)


async def reset_subscription(
    hub: Hub, call: Call, subscription_id: str, start: str
) -> Subscription:
    """Move one of the caller's subscriptions to another position; its leases end.

    Raises SubscriptionNotFound, PermissionDenied, FieldUnknown, CursorInvalid and CursorExpired.
    """
    check_reader(hub, call)
    known_one = await get_subscription(hub, call, subscription_id)
    call.asked(start=start)
    begin = await find_start(hub, await open_source(hub, call, known_one.terms, 1), start)

    async def work(connection: Connection) -> Subscription:
        held = await leases.lock_subscription(connection, owner_of(call), subscription_id)
        await held.reset(begin)
        return await store.find_subscription(connection, owner_of(call), subscription_id)

    return await run_change(hub, call, subscription_id, work)
