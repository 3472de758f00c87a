"""Subscriptions: what they send, and how far their consumers have got.

The log up to a subscription's ``position`` has been sent, in leases (see ``store.leases``).
Everything before the first unacknowledged lease is acknowledged.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import asyncpg

from penstockd.errors import (
    CursorInvalid,
    SubscriptionExists,
    SubscriptionNotFound,
    TooManySubscriptions,
)
from penstockd.store.cursor import REPAIR, Cursor
from penstockd.store.database import Connection

#: The most subscriptions of a consumer.
MAX_SUBSCRIPTIONS = 100
#: The condition for one subscription's rows, by the first two parameters.
WHOSE = "consumer_id = $1 AND subscription_id = $2"

_UNDONE = (
    "the database has gone back in time, as by a failover or a restore: repair what you have, and"
    " reset the subscription to the cursor that you repaired to"
)


@dataclass(frozen=True, slots=True)
class SubscriptionTerms:
    """What a subscription sends; ``ordered``: one stretch at a time."""

    datasets: Sequence[str]
    filter: str = ""
    fields: str = ""
    operations: Sequence[int] = ()
    include_before: bool = False
    ordered: bool = True
    shapes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Subscription:
    """The state of a subscription. A reset changes ``lineage``.

    ``lease_count`` counts unacknowledged leases that have not expired, ``outstanding`` the changes
    of all unacknowledged ones. ``undone``: the database has gone back in time since the
    subscription was made or reset, so its consumer may have changes that were undone.
    """

    consumer_id: str
    subscription_id: str
    lineage: str
    terms: SubscriptionTerms
    position: Cursor
    acknowledged: Cursor
    lease_count: int
    outstanding: int
    create_time: datetime
    update_time: datetime
    undone: bool


_COLUMNS = """
SELECT s.*, s.epoch < h.epoch AS undone, o.starts, o.lease_count, o.outstanding
FROM hub.epoch_head AS h CROSS JOIN hub.subscription AS s CROSS JOIN LATERAL (
    SELECT array_agg(l.start_cursor ORDER BY l.start_number) AS starts,
           count(*) FILTER (WHERE l.expire_time > clock_timestamp())::int AS lease_count,
           coalesce(sum(l.change_count), 0)::bigint AS outstanding
    FROM hub.subscription_lease AS l
    WHERE l.consumer_id = s.consumer_id AND l.subscription_id = s.subscription_id
    AND NOT l.acknowledged
) AS o
"""


async def insert_subscription(
    connection: Connection,
    consumer_id: str,
    subscription_id: str,
    terms: SubscriptionTerms,
    start: Cursor,
) -> None:
    """Make a subscription. Raises SubscriptionExists and TooManySubscriptions."""
    await connection.execute(
        "SELECT pg_advisory_xact_lock(hashtextextended('subscriptions of ' || $1, 0))", consumer_id
    )
    count = await connection.fetchval(
        "SELECT count(*) FROM hub.subscription WHERE consumer_id = $1", consumer_id
    )
    insert = (
        "INSERT INTO hub.subscription (consumer_id, subscription_id, lineage, datasets, filter,"
        " fields, operations, include_before, ordered, shapes, position, epoch)"
        " SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, epoch FROM hub.epoch_head"
        " ON CONFLICT DO NOTHING"
    )
    done = await connection.execute(
        insert,
        consumer_id,
        subscription_id,
        secrets.token_hex(8),
        list(terms.datasets),
        terms.filter,
        terms.fields,
        list(terms.operations),
        terms.include_before,
        terms.ordered,
        list(terms.shapes),
        start.stored,
    )
    if done == "INSERT 0 0":
        raise SubscriptionExists(f"there is a subscription '{subscription_id}' already")
    if count >= MAX_SUBSCRIPTIONS:
        raise TooManySubscriptions(
            f"you have {MAX_SUBSCRIPTIONS} subscriptions already; delete some"
        )


async def list_some(
    connection: Connection, consumer_id: str, after: str, limit: int
) -> list[Subscription]:
    """The first subscriptions of a consumer after an id, by id."""
    rows = await connection.fetch(
        f"{_COLUMNS} WHERE s.consumer_id = $1 AND s.subscription_id > $2"
        " ORDER BY s.subscription_id LIMIT $3",
        consumer_id,
        after,
        limit,
    )
    return [_read_subscription(row) for row in rows]


async def find_subscription(
    connection: Connection, consumer_id: str, subscription_id: str
) -> Subscription:
    """One subscription. Raises SubscriptionNotFound."""
    row = await connection.fetchrow(
        f"{_COLUMNS} WHERE s.consumer_id = $1 AND s.subscription_id = $2",
        consumer_id,
        subscription_id,
    )
    if row is None:
        raise subscription_absent(subscription_id)
    return _read_subscription(row)


def subscription_absent(subscription_id: str) -> SubscriptionNotFound:
    """The error for a subscription that does not exist or belongs to another consumer."""
    return SubscriptionNotFound(f"there is no subscription '{subscription_id}'")


async def remove_subscription(
    connection: Connection, consumer_id: str, subscription_id: str
) -> None:
    """Delete a subscription. Raises SubscriptionNotFound."""
    done = await connection.execute(
        f"DELETE FROM hub.subscription WHERE {WHOSE}", consumer_id, subscription_id
    )
    if done == "DELETE 0":
        raise subscription_absent(subscription_id)


def _read_subscription(row: asyncpg.Record) -> Subscription:
    terms = SubscriptionTerms(
        row["datasets"],
        row["filter"],
        row["fields"],
        row["operations"],
        row["include_before"],
        row["ordered"],
        row["shapes"],
    )
    position = Cursor.parse(row["position"])
    return Subscription(
        row["consumer_id"],
        row["subscription_id"],
        row["lineage"],
        terms,
        position,
        first_cursor(row["starts"] or ()) or position,
        row["lease_count"],
        row["outstanding"],
        row["create_time"],
        row["update_time"],
        row["undone"],
    )


def check_epoch(*, undone: bool) -> None:
    """Raise CursorInvalid, with the remedy, while changes that the consumer received may be undone.
    This lasts until it resets the subscription, since it may have several workers."""
    if undone:
        raise CursorInvalid(_UNDONE, metadata=REPAIR)


def first_cursor(cursors: Sequence[str]) -> Cursor | None:
    """The first of some cursors, which are in order of their numbers; None if there are none."""
    found: Cursor | None = None
    for text in cursors:
        cursor = Cursor.parse(text)
        if found is not None and cursor.number > found.number:
            break
        if found is None or cursor.place < found.place:
            found = cursor
    return found
