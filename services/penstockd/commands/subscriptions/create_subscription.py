"""CreateSubscription: a named position in the change log."""

from __future__ import annotations

from dataclasses import replace

from penstockd.calls import Call
from penstockd.feed.watching import list_readable
from penstockd.hub import Hub
from penstockd.store import subscriptions as store
from penstockd.store.database import Connection
from penstockd.store.shapes import hold_shapes
from penstockd.store.subscriptions import Subscription, SubscriptionTerms
from penstockd.subscriptions.manage import (
    check_reader,
    check_terms,
    find_start,
    open_source,
    owner_of,
    run_change,
)


async def create_subscription(
    hub: Hub, call: Call, subscription_id: str, terms: SubscriptionTerms, start: str
) -> Subscription:
    """Create a subscription for the caller.

    Raises ValueInvalid, PermissionDenied, FieldUnknown, FilterInvalid, CursorInvalid,
    CursorExpired, ShapeNotFound, SubscriptionExists and TooManySubscriptions.
    """
    check_reader(hub, call)
    check_terms(subscription_id, terms)
    datasets = [d.name for d in list_readable(hub.catalog, call, terms.datasets)]
    terms = replace(terms, datasets=datasets, operations=sorted(set(terms.operations)))
    source = await open_source(hub, call, terms, 1)
    call.asked(start=start, include_before=terms.include_before)
    begin = await find_start(hub, source, start)

    async def work(connection: Connection) -> Subscription:
        await hold_shapes(connection, owner_of(call), terms.shapes)
        await store.insert_subscription(connection, owner_of(call), subscription_id, terms, begin)
        return await store.find_subscription(connection, owner_of(call), subscription_id)

    return await run_change(hub, call, subscription_id, work)
