"""Subscriptions: how far their consumers have come, and the stretches that workers hold.

The log up to a subscription's ``position`` has been given out, in leases. What is acknowledged is
all before the first lease that is not; so it moves over stretches that join, and only by
acknowledgements. Whoever changes something holds the lock of the subscription's row, shortly:
nobody reads the log under it.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import asyncpg

from penstockd.errors import (
    AcknowledgedBackwards,
    CursorInvalid,
    LeaseExpired,
    LeaseUnknown,
    SubscriptionExists,
    SubscriptionNotFound,
    TooManySubscriptions,
)
from penstockd.store.cursor import FOREIGN, Cursor
from penstockd.store.database import Connection

#: The most subscriptions of a consumer, and leases at one time of one that is not ordered.
MAX_SUBSCRIPTIONS, MAX_LEASES = 100, 100
#: So many numbers of leases an acknowledged one is known for, to be acknowledged again.
KEPT_LEASES = 100

_LEASE_ID = re.compile(r"([0-9a-f]{16})-([0-9]{1,18})-([0-9]{1,18})")
_LOST = "the lease has expired; its changes are given again"
_WHOSE = "consumer_id = $1 AND subscription_id = $2"


@dataclass(frozen=True, slots=True)
class Terms:
    """What a subscription gives out; ``ordered``: one stretch at a time."""

    datasets: Sequence[str]
    filter: str = ""
    fields: str = ""
    operations: Sequence[int] = ()
    include_before: bool = False
    ordered: bool = True


@dataclass(frozen=True, slots=True)
class Subscription:
    """A subscription as it stands. Another ``lineage``: it was reset meanwhile.

    ``lease_count`` are leases that have not expired, ``outstanding`` the changes of all that are
    not acknowledged.
    """

    consumer_id: str
    subscription_id: str
    lineage: str
    terms: Terms
    position: Cursor
    acknowledged: Cursor
    lease_count: int
    outstanding: int
    create_time: datetime
    update_time: datetime


@dataclass(frozen=True, slots=True)
class Place:
    """Where the next stretch begins: behind all that was given out, or at an expired ``lease``,
    whose stretch has an ``end``. ``attempt``: how often it was given out before."""

    lineage: str
    start: Cursor
    end: Cursor | None = None
    lease: int = 0
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class Lease:
    """A stretch that a worker holds until ``expire_time``."""

    lease_id: str
    end: Cursor
    change_count: int
    attempt: int
    expire_time: datetime


_COLUMNS = """
SELECT s.*, o.start_cursor, o.lease_count, o.outstanding
FROM hub.subscription AS s CROSS JOIN LATERAL (
    SELECT (array_agg(l.start_cursor ORDER BY l.start_number))[1] AS start_cursor,
           count(*) FILTER (WHERE l.expire_time > clock_timestamp())::int AS lease_count,
           coalesce(sum(l.change_count), 0)::bigint AS outstanding
    FROM hub.subscription_lease AS l
    WHERE l.consumer_id = s.consumer_id AND l.subscription_id = s.subscription_id
    AND NOT l.acknowledged
) AS o
"""


async def create(
    connection: Connection, consumer_id: str, subscription_id: str, terms: Terms, start: Cursor
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
        " fields, operations, include_before, ordered, position)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING"
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
        str(start),
    )
    if done == "INSERT 0 0":
        raise SubscriptionExists(f"there is a subscription '{subscription_id}' already")
    if count >= MAX_SUBSCRIPTIONS:
        raise TooManySubscriptions(
            f"you have {MAX_SUBSCRIPTIONS} subscriptions already; delete some"
        )


async def every(connection: Connection, consumer_id: str) -> list[Subscription]:
    """The subscriptions of a consumer, by id."""
    rows = await connection.fetch(
        f"{_COLUMNS} WHERE s.consumer_id = $1 ORDER BY s.subscription_id", consumer_id
    )
    return [_subscription(row) for row in rows]


async def find(connection: Connection, consumer_id: str, subscription_id: str) -> Subscription:
    """One subscription. Raises SubscriptionNotFound."""
    row = await connection.fetchrow(
        f"{_COLUMNS} WHERE s.consumer_id = $1 AND s.subscription_id = $2",
        consumer_id,
        subscription_id,
    )
    if row is None:
        raise absent(subscription_id)
    return _subscription(row)


def absent(subscription_id: str) -> SubscriptionNotFound:
    """There is none, or it is another's."""
    return SubscriptionNotFound(f"there is no subscription '{subscription_id}'")


async def delete(connection: Connection, consumer_id: str, subscription_id: str) -> None:
    """Delete a subscription. Raises SubscriptionNotFound."""
    done = await connection.execute(
        f"DELETE FROM hub.subscription WHERE {_WHOSE}", consumer_id, subscription_id
    )
    if done == "DELETE 0":
        raise absent(subscription_id)


class Held:
    """A subscription whose row is locked, to the end of the connection's transaction."""

    def __init__(self, connection: Connection, row: asyncpg.Record) -> None:
        self._connection = connection
        self._key = (row["consumer_id"], row["subscription_id"])
        self._lineage: str = row["lineage"]
        self._position = Cursor.parse(row["position"])
        self._ordered: bool = row["ordered"]
        self._next: int = row["next_lease"]

    async def place(self) -> tuple[Place | None, float]:
        """Where the next stretch begins; None and the seconds until a lease expires, if no more
        may be held at one time."""
        return await _place(self._connection, self._key, self._ordered, self._fresh)

    @property
    def _fresh(self) -> Place:
        return Place(self._lineage, self._position)

    async def claim(self, place: Place, end: Cursor, changes: int, seconds: int) -> Lease | None:
        """Lease the stretch from a place to ``end``; None if the place is not the next any more.

        Without changes there is nothing to lease: the stretch counts as acknowledged.
        """
        if (await self.place())[0] != place:
            return None
        if place.end is None:
            await self._connection.execute(
                f"UPDATE hub.subscription SET position = $3 WHERE {_WHOSE}", *self._key, str(end)
            )
        else:
            await self._shrink(place, end, changes)
        if not changes:
            return None
        return await self._insert(place, end, changes, seconds)

    async def _shrink(self, place: Place, end: Cursor, changes: int) -> None:
        """Leave of an expired lease what is behind ``end``, to be given out next."""
        assert place.end is not None, "an expired lease has an end"
        if end.number >= place.end.number:
            await self._connection.execute(
                f"DELETE FROM hub.subscription_lease WHERE {_WHOSE} AND number = $3",
                *self._key,
                place.lease,
            )
            return
        await self._connection.execute(
            "UPDATE hub.subscription_lease SET start_cursor = $4, start_number = $5,"
            f" change_count = greatest(change_count - $6, 0) WHERE {_WHOSE} AND number = $3",
            *self._key,
            place.lease,
            str(end),
            end.number,
            changes,
        )

    async def _insert(self, place: Place, end: Cursor, changes: int, seconds: int) -> Lease:
        number = self._next
        await self._connection.execute(
            f"UPDATE hub.subscription SET next_lease = next_lease + 1 WHERE {_WHOSE}", *self._key
        )
        expire_time = await self._connection.fetchval(
            "INSERT INTO hub.subscription_lease (consumer_id, subscription_id, number,"
            " start_cursor, start_number, end_cursor, change_count, attempt, expire_time)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7, $8,"
            " clock_timestamp() + make_interval(secs => $9)) RETURNING expire_time",
            *self._key,
            number,
            str(place.start),
            place.start.number,
            str(end),
            changes,
            place.attempt,
            float(seconds),
        )
        lease_id = f"{self._lineage}-{number}-{end.number}"
        return Lease(lease_id, end, changes, place.attempt, expire_time)

    async def acknowledge(self, lease_id: str) -> Cursor:
        """Acknowledge a lease; returns how far all is acknowledged. Twice is as good as once.

        Raises LeaseUnknown, LeaseExpired and AcknowledgedBackwards.
        """
        number = await self._live(lease_id, again=True)
        await self._connection.execute(
            f"UPDATE hub.subscription_lease SET acknowledged = true WHERE {_WHOSE} AND number = $3",
            *self._key,
            number,
        )
        return await self._moved()

    async def acknowledge_to(self, cursor: Cursor) -> Cursor:
        """Acknowledge the lease that ends at a cursor and all before it; returns how far it is.

        Raises CursorInvalid, LeaseUnknown, LeaseExpired and AcknowledgedBackwards.
        """
        done = await self._acknowledged()
        if cursor.epoch != done.epoch:
            raise CursorInvalid(FOREIGN)
        if cursor.number < done.number:
            raise _backwards(done)
        if cursor.number == done.number:
            return done
        row = await self._connection.fetchrow(
            "SELECT expire_time <= clock_timestamp() AND NOT acknowledged AS expired"
            f" FROM hub.subscription_lease WHERE {_WHOSE} AND end_cursor = $3"
            " ORDER BY number DESC LIMIT 1",
            *self._key,
            str(cursor),
        )
        if row is None:
            raise LeaseUnknown("no lease of this subscription ends at the cursor")
        if row["expired"]:
            raise LeaseExpired(_LOST)
        await self._connection.execute(
            "UPDATE hub.subscription_lease SET acknowledged = true"
            f" WHERE {_WHOSE} AND NOT acknowledged AND start_number < $3",
            *self._key,
            cursor.number,
        )
        return await self._moved()

    async def extend(self, lease_id: str, seconds: int) -> Lease:
        """Let a lease run for so many seconds from now; 0 ends it.

        Raises LeaseUnknown, LeaseExpired and AcknowledgedBackwards.
        """
        row = await self._connection.fetchrow(
            "UPDATE hub.subscription_lease"
            " SET expire_time = clock_timestamp() + make_interval(secs => $4)"
            f" WHERE {_WHOSE} AND number = $3 RETURNING *",
            *self._key,
            await self._live(lease_id),
            float(seconds),
        )
        assert row is not None, "it is there, and its subscription is locked"
        end = Cursor.parse(row["end_cursor"])
        return Lease(lease_id, end, row["change_count"], row["attempt"], row["expire_time"])

    async def reset(self, start: Cursor) -> None:
        """Go on from another place; all leases end."""
        await self._connection.execute(
            f"DELETE FROM hub.subscription_lease WHERE {_WHOSE}", *self._key
        )
        await self._connection.execute(
            "UPDATE hub.subscription SET position = $3, lineage = $4, update_time = now()"
            f" WHERE {_WHOSE}",
            *self._key,
            str(start),
            secrets.token_hex(8),
        )

    async def _live(self, lease_id: str, *, again: bool = False) -> int:
        """The number of a lease that runs, or (``again``) that is acknowledged already."""
        match = _LEASE_ID.fullmatch(lease_id)
        if match is None or match[1] != self._lineage or int(match[2]) >= self._next:
            raise LeaseUnknown(
                "the lease is not one of this subscription, or from before its reset"
            )
        number, end = int(match[2]), int(match[3])
        row = await self._connection.fetchrow(
            "SELECT acknowledged, expire_time <= clock_timestamp() AS expired"
            f" FROM hub.subscription_lease WHERE {_WHOSE} AND number = $3",
            *self._key,
            number,
        )
        if row is not None and row["acknowledged"]:
            if again:
                return number
            raise _backwards(await self._acknowledged())
        if row is not None and not row["expired"]:
            return number
        done = await self._acknowledged()
        if row is None and end <= done.number:
            raise _backwards(done)
        raise LeaseExpired(_LOST)

    async def _acknowledged(self) -> Cursor:
        first = await self._connection.fetchval(
            f"SELECT start_cursor FROM hub.subscription_lease WHERE {_WHOSE} AND NOT acknowledged"
            " ORDER BY start_number LIMIT 1",
            *self._key,
        )
        return self._position if first is None else Cursor.parse(first)

    async def _moved(self) -> Cursor:
        """Something has been acknowledged: forget what was so long ago."""
        await self._connection.execute(
            f"DELETE FROM hub.subscription_lease WHERE {_WHOSE} AND acknowledged AND number < $3",
            *self._key,
            self._next - KEPT_LEASES,
        )
        await self._connection.execute(
            f"UPDATE hub.subscription SET update_time = now() WHERE {_WHOSE}", *self._key
        )
        return await self._acknowledged()


async def hold(connection: Connection, consumer_id: str, subscription_id: str) -> Held:
    """Lock a subscription for the rest of the transaction. Raises SubscriptionNotFound."""
    row = await connection.fetchrow(
        f"SELECT * FROM hub.subscription WHERE {_WHOSE} FOR UPDATE", consumer_id, subscription_id
    )
    if row is None:
        raise absent(subscription_id)
    return Held(connection, row)


async def next_place(
    connection: Connection, subscription: Subscription
) -> tuple[Place | None, float]:
    """See ``Held.place``; without a lock, so that it may be another one by the next moment."""
    key = (subscription.consumer_id, subscription.subscription_id)
    fresh = Place(subscription.lineage, subscription.position)
    return await _place(connection, key, subscription.terms.ordered, fresh)


async def outstanding(
    connection: Connection, consumer_id: str, subscription_id: str, lease_ids: Sequence[str]
) -> Sequence[str]:
    """Those of some leases that are neither acknowledged nor expired."""
    numbers = {int(lease_id.split("-")[1]): lease_id for lease_id in lease_ids}
    rows = await connection.fetch(
        f"SELECT number FROM hub.subscription_lease WHERE {_WHOSE} AND number = ANY ($3::bigint[])"
        " AND NOT acknowledged AND expire_time > clock_timestamp()",
        consumer_id,
        subscription_id,
        list(numbers),
    )
    return [numbers[row[0]] for row in rows]


async def _place(
    connection: Connection, key: tuple[str, str], ordered: bool, fresh: Place
) -> tuple[Place | None, float]:
    live = await connection.fetchrow(
        "SELECT count(*) AS count, extract(epoch FROM min(expire_time) - clock_timestamp())::float8"
        f" AS seconds FROM hub.subscription_lease WHERE {_WHOSE} AND NOT acknowledged"
        " AND expire_time > clock_timestamp()",
        *key,
    )
    assert live is not None, "a count has a row"
    if live["count"] >= (1 if ordered else MAX_LEASES):
        return None, max(0.0, live["seconds"])
    row = await connection.fetchrow(
        f"SELECT * FROM hub.subscription_lease WHERE {_WHOSE} AND NOT acknowledged"
        " AND expire_time <= clock_timestamp() ORDER BY start_number, number LIMIT 1",
        *key,
    )
    if row is None:
        return fresh, 0.0
    start, end = Cursor.parse(row["start_cursor"]), Cursor.parse(row["end_cursor"])
    return Place(fresh.lineage, start, end, row["number"], row["attempt"] + 1), 0.0


def _backwards(done: Cursor) -> AcknowledgedBackwards:
    return AcknowledgedBackwards(
        "these changes were acknowledged before", metadata={"cursor": str(done)}
    )


def _subscription(row: asyncpg.Record) -> Subscription:
    terms = Terms(
        row["datasets"],
        row["filter"],
        row["fields"],
        row["operations"],
        row["include_before"],
        row["ordered"],
    )
    position = Cursor.parse(row["position"])
    first = row["start_cursor"]
    return Subscription(
        row["consumer_id"],
        row["subscription_id"],
        row["lineage"],
        terms,
        position,
        position if first is None else Cursor.parse(first),
        row["lease_count"],
        row["outstanding"],
        row["create_time"],
        row["update_time"],
    )
