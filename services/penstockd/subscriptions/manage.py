"""Making, finding, resetting and deleting subscriptions."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

from penstockd.calls import Call
from penstockd.errors import PermissionDenied, ValueInvalid, Violation
from penstockd.feed.bells import ring_everywhere, subscription_line
from penstockd.feed.source import Source
from penstockd.feed.watching import Wanted, readable
from penstockd.hub import Hub
from penstockd.policy.model import Action
from penstockd.store import leases
from penstockd.store import subscriptions as store
from penstockd.store.cursor import Cursor, read_extent
from penstockd.store.database import Connection
from penstockd.store.subscriptions import Subscription, Terms

#: Bytes of what a subscription says: every pull reads it.
MAX_TERMS = 16 * 1024
#: Where a subscription begins, unless with a cursor.
NOW, OLDEST = "now", "oldest"

_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")

T = TypeVar("T")


def owner(call: Call) -> str:
    """The consumer whose subscriptions the caller may use: its own."""
    assert call.principal is not None, "the auth interceptor lets nobody in without one"
    return call.principal.consumer_id


def source_of(hub: Hub, call: Call, terms: Terms, changes: int) -> Source:
    """What a subscription gives out in the caller's Views of now.

    Raises PermissionDenied, FieldUnknown, FilterInvalid and ValueInvalid.
    """
    wanted = Wanted(
        readable(hub, call, terms.datasets),
        mixed=True,
        filter=terms.filter,
        fields=terms.fields,
        operations=terms.operations,
        include_before=terms.include_before,
    )
    return wanted.source(hub, call, changes)


async def create_subscription(
    hub: Hub, call: Call, subscription_id: str, terms: Terms, start: str
) -> Subscription:
    """Make a subscription of the caller's.

    Raises ValueInvalid, PermissionDenied, FieldUnknown, FilterInvalid, CursorInvalid,
    CursorExpired, SubscriptionExists and TooManySubscriptions.
    """
    _check(subscription_id, terms)
    datasets = [d.name for d in readable(hub, call, terms.datasets)]
    terms = replace(terms, datasets=datasets, operations=sorted(set(terms.operations)))
    source = source_of(hub, call, terms, 1)
    call.asked(start=start, include_before=terms.include_before)
    begin = await _begin(hub, source, start)

    async def work(connection: Connection) -> Subscription:
        await store.create(connection, owner(call), subscription_id, terms, begin)
        return await store.find(connection, owner(call), subscription_id)

    return await changing(hub, call, subscription_id, work)


async def get_subscription(hub: Hub, call: Call, subscription_id: str) -> Subscription:
    """One subscription of the caller's. Raises SubscriptionNotFound and PermissionDenied."""
    call.entry.record_key = known(subscription_id)
    async with hub.database.connection() as connection:
        return await found(call, connection, subscription_id)


async def list_subscriptions(hub: Hub, call: Call) -> list[Subscription]:
    """The subscriptions of the caller's, of what its token may read."""
    async with hub.database.connection() as connection:
        every = await store.every(connection, owner(call))
    shown = [s for s in every if not _unread(call, s)]
    call.entry.row_count = len(shown)
    return shown


async def delete_subscription(hub: Hub, call: Call, subscription_id: str) -> None:
    """Delete a subscription of the caller's. Raises SubscriptionNotFound and PermissionDenied."""

    async def work(connection: Connection) -> None:
        await found(call, connection, subscription_id)
        await store.delete(connection, owner(call), subscription_id)

    await changing(hub, call, subscription_id, work)


async def reset_subscription(
    hub: Hub, call: Call, subscription_id: str, start: str
) -> Subscription:
    """Let a subscription of the caller's go on from another place; its leases end.

    Raises SubscriptionNotFound, PermissionDenied, FieldUnknown, CursorInvalid and CursorExpired.
    """
    known_one = await get_subscription(hub, call, subscription_id)
    call.asked(start=start)
    begin = await _begin(hub, source_of(hub, call, known_one.terms, 1), start)

    async def work(connection: Connection) -> Subscription:
        held = await leases.hold(connection, owner(call), subscription_id)
        await held.reset(begin)
        return await store.find(connection, owner(call), subscription_id)

    return await changing(hub, call, subscription_id, work)


async def changing(
    hub: Hub, call: Call, subscription_id: str, work: Callable[[Connection], Awaitable[T]]
) -> T:
    """What ``work`` returns, done in one transaction with its audit entry, to its end."""
    call.entry.record_key = known(subscription_id)

    async def write() -> T:
        async with call.writing(hub.database.transaction()) as connection:
            result = await work(connection)
            line = subscription_line(owner(call), subscription_id)
            await ring_everywhere(connection, line)
            await call.audit_within(connection, 1)
        return result

    return await hub.tasks.run(write())


async def found(call: Call, connection: Connection, subscription_id: str) -> Subscription:
    """A subscription of the caller's consumer, for a caller whose token may read all of it.

    What counts is what the token leaves: the owner may delete one of a dataset that it may not
    read any more. Raises SubscriptionNotFound and PermissionDenied.
    """
    subscription = await store.find(connection, owner(call), subscription_id)
    if dataset := _unread(call, subscription):
        raise PermissionDenied(f"the subscription is of {dataset}, which your token may not read")
    return subscription


def _unread(call: Call, subscription: Subscription) -> str:
    """The first dataset of a subscription that the caller's token may not read; "" if none."""
    assert call.principal is not None, "the auth interceptor lets nobody in without one"
    names = (d for d in subscription.terms.datasets if not call.reaches(d, Action.READ))
    return next(names, "")


def known(subscription_id: str) -> str:
    """The id, if there can be a subscription with it. Raises SubscriptionNotFound."""
    if not _ID.fullmatch(subscription_id):
        raise store.absent(subscription_id[:63])
    return subscription_id


async def _begin(hub: Hub, source: Source, start: str) -> Cursor:
    """The cursor that ``start`` stands for. Raises CursorInvalid and CursorExpired."""
    if start in ("", NOW):
        return await hub.feed.head()
    if start == OLDEST:
        async with hub.database.connection() as connection:
            return (await read_extent(connection)).oldest
    cursor = Cursor.parse(start)
    await hub.feed.read(source, cursor, cursor.number)
    return cursor


def _check(subscription_id: str, terms: Terms) -> None:
    violations = []
    if not _ID.fullmatch(subscription_id):
        problem = "must be lower-case letters, digits, '-', '_' and '.', 63 at most"
        violations.append(Violation("subscription.subscription_id", problem))
    if len(terms.datasets) != 1:
        for name in ("filter", "fields"):
            if getattr(terms, name):
                violations.append(Violation(f"subscription.{name}", "goes with one dataset"))
    texts = (*terms.datasets, terms.filter, terms.fields)
    if sum(len(text.encode()) for text in texts) + 4 * len(terms.operations) > MAX_TERMS:
        violations.append(Violation("subscription", f"may have {MAX_TERMS} bytes"))
    if violations:
        first = violations[0]
        raise ValueInvalid(f"{first.field}: {first.description}", violations=violations)
