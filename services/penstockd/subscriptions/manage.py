"""Ownership, contents and changes of subscriptions."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from penstockd.calls import Call
from penstockd.errors import CursorInvalid, LeaseUnknown, PermissionDenied, ValueInvalid, Violation
from penstockd.feed.bells import ring_everywhere, subscription_line
from penstockd.feed.organs import FeedOrgans
from penstockd.feed.source import FeedSource
from penstockd.feed.watching import Wanted, list_readable
from penstockd.policy.model import Action
from penstockd.store import leases
from penstockd.store import subscriptions as store
from penstockd.store.announcements import Announcements
from penstockd.store.cursor import Cursor, read_extent
from penstockd.store.database import Connection
from penstockd.store.places import Places
from penstockd.store.subscriptions import Subscription, SubscriptionTerms

#: The most bytes of a subscription's terms, which every pull reads.
MAX_TERMS = 16 * 1024
#: The start of a subscription without a cursor.
NOW, OLDEST = "now", "oldest"

_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")

T = TypeVar("T")


class SubscriptionOrgans(FeedOrgans, Protocol):
    """The organs for subscriptions."""

    @property
    def announcements(self) -> Announcements:
        """Wakes waiting calls of other processes."""


def owner_of(call: Call) -> str:
    """The consumer whose subscriptions the caller may use: its own."""
    return call.principal.consumer_id


def check_reader(organs: SubscriptionOrgans, call: Call) -> None:
    """Raise PermissionDenied if the caller may not read any dataset. Each command calls this first,
    so that such a caller does not learn which subscriptions exist."""
    list_readable(organs.catalog, call, ())


async def open_source(
    organs: SubscriptionOrgans, call: Call, terms: SubscriptionTerms, changes: int
) -> FeedSource:
    """The source of a subscription's changes in the caller's current Views.

    Raises PermissionDenied, FieldUnknown, FilterInvalid, ValueInvalid and ShapeNotFound.
    """
    wanted = Wanted(
        list_readable(organs.catalog, call, terms.datasets),
        mixed=True,
        filter=terms.filter,
        fields=terms.fields,
        operations=terms.operations,
        include_before=terms.include_before,
        shape_names=terms.shapes,
    )
    return await wanted.open_source(organs, call, changes)


async def run_change(
    organs: SubscriptionOrgans,
    call: Call,
    subscription_id: str,
    work: Callable[[Connection], Awaitable[T]],
) -> T:
    """Run ``work`` to its end in one transaction with its audit entry, and return its result."""
    call.entry.record_key = check_id(subscription_id)

    async def write() -> T:
        async with call.writing(organs.database.transaction()) as connection:
            result = await work(connection)
            line = subscription_line(owner_of(call), subscription_id)
            await ring_everywhere(organs.announcements, connection, line)
            await call.audit_within(connection, 1)
        return result

    return await call.finish(write())


async def find_own(call: Call, connection: Connection, subscription_id: str) -> Subscription:
    """A subscription of the caller's consumer, for a caller whose token may read all of it.

    Only the token's scopes count: the owner may still delete a subscription to a dataset that it
    may no longer read. Raises SubscriptionNotFound and PermissionDenied.
    """
    subscription = await store.find_subscription(connection, owner_of(call), subscription_id)
    if dataset := first_unread(call, subscription):
        raise PermissionDenied(f"the subscription is of {dataset}, which your token may not read")
    return subscription


def first_unread(call: Call, subscription: Subscription) -> str:
    """The first dataset of a subscription that the caller's token may not read, or ""."""
    names = (d for d in subscription.terms.datasets if not call.reaches(d, Action.READ))
    return next(names, "")


def check_id(subscription_id: str) -> str:
    """The id, if it is well formed. Raises SubscriptionNotFound."""
    if not _ID.fullmatch(subscription_id):
        raise store.subscription_absent(subscription_id[:63])
    return subscription_id


def named_lease(places: Places, lease_id: str) -> str:
    """Open the lease id of a caller. Raises LeaseUnknown."""
    try:
        return places.open_lease(lease_id)
    except CursorInvalid:
        raise LeaseUnknown(leases.UNKNOWN) from None


async def find_start(organs: SubscriptionOrgans, source: FeedSource, start: str) -> Cursor:
    """The cursor that ``start`` stands for. Raises CursorInvalid and CursorExpired."""
    if start in ("", NOW):
        return await organs.feed.head()
    if start == OLDEST:
        async with organs.database.connection() as connection:
            return (await read_extent(connection)).oldest
    cursor = organs.places.open(start)
    await organs.feed.read(source, cursor, cursor.number)
    return cursor


def check_terms(subscription_id: str, terms: SubscriptionTerms) -> None:
    """Raise ValueInvalid for an id or terms that no subscription can have."""
    violations = []
    if not _ID.fullmatch(subscription_id):
        problem = "must be lower-case letters, digits, '-', '_' and '.', 63 at most"
        violations.append(Violation("subscription.subscription_id", problem))
    if len(terms.datasets) != 1:
        for name in ("filter", "fields"):
            if getattr(terms, name):
                violations.append(Violation(f"subscription.{name}", "needs exactly one dataset"))
    texts = (*terms.datasets, *terms.shapes, terms.filter, terms.fields)
    if sum(len(text.encode()) for text in texts) + 4 * len(terms.operations) > MAX_TERMS:
        violations.append(Violation("subscription", f"may have at most {MAX_TERMS} bytes"))
    if violations:
        first = violations[0]
        raise ValueInvalid(f"{first.field}: {first.description}", violations=violations)
