"""Leases: the stretches of the log that a subscription's workers have received.

The acknowledged position moves only by acknowledgements, over adjoining stretches. Every change
holds the lock of the subscription's row, briefly: nobody reads the log under it.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import asyncpg

from penstockd.errors import AcknowledgedBackwards, LeaseExpired, LeaseUnknown
from penstockd.store.cursor import Cursor, check_cursor
from penstockd.store.database import Connection
from penstockd.store.subscriptions import (
    WHOSE,
    Subscription,
    check_epoch,
    first_cursor,
    subscription_absent,
)

#: The most leases that an unordered subscription has at one time.
MAX_LEASES = 100
#: An acknowledged lease is remembered for this many later leases, so that it can be acknowledged
#: again.
KEPT_LEASES = 100

#: Lineage, number, number of its end, and a random token; leases of earlier versions have none.
_LEASE_ID = re.compile(r"([0-9a-f]{16})-([0-9]{1,18})-([0-9]{1,18})(?:-([0-9a-f]{16}))?")
UNKNOWN = "the lease is not one of this subscription, or from before its reset"
_LOST = "the lease has expired; its changes are delivered again"


@dataclass(frozen=True, slots=True)
class Place:
    """The start of the next stretch: after all that was sent, or at an expired ``lease``, whose
    stretch has an ``end``. ``attempt`` is the number of times it was sent before."""

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


class LockedSubscription:
    """A subscription whose row is locked until the connection's transaction ends."""

    def __init__(self, connection: Connection, row: asyncpg.Record) -> None:
        self._connection = connection
        self._key = (row["consumer_id"], row["subscription_id"])
        self._lineage: str = row["lineage"]
        self._position = Cursor.parse(row["position"])
        self._ordered: bool = row["ordered"]
        self._next: int = row["next_lease"]
        self._undone: bool = row["undone"]

    async def place(self) -> tuple[Place | None, float]:
        """The start of the next stretch; None and the seconds until a lease expires, if the
        subscription has as many leases as it may."""
        return await _choose_place(self._connection, self._key, self._ordered, self._fresh)

    @property
    def _fresh(self) -> Place:
        return Place(self._lineage, self._position)

    async def claim(self, place: Place, end: Cursor, changes: int, seconds: int) -> Lease | None:
        """Lease the stretch from a place to ``end``; None if the place is no longer the next.

        Without changes it also returns None: the stretch counts as acknowledged. Raises
        CursorInvalid if the log has gone back in time since the stretch was read.
        """
        check_epoch(undone=self._undone)
        if (await self.place())[0] != place:
            return None
        await check_cursor(self._connection, end)
        if place.end is None:
            await self._connection.execute(
                f"UPDATE hub.subscription SET position = $3 WHERE {WHOSE}", *self._key, end.stored
            )
        else:
            await self._shrink(place, end, changes)
        if not changes:
            return None
        return await self._insert(place, end, changes, seconds)

    async def _shrink(self, place: Place, end: Cursor, changes: int) -> None:
        """Reduce an expired lease to the part after ``end``, which is sent next."""
        assert place.end is not None, "an expired lease has an end"
        if end.place >= place.end.place:
            await self._connection.execute(
                f"DELETE FROM hub.subscription_lease WHERE {WHOSE} AND number = $3",
                *self._key,
                place.lease,
            )
            return
        await self._connection.execute(
            "UPDATE hub.subscription_lease SET start_cursor = $4, start_number = $5,"
            f" change_count = greatest(change_count - $6, 0) WHERE {WHOSE} AND number = $3",
            *self._key,
            place.lease,
            end.stored,
            end.number,
            changes,
        )

    async def _insert(self, place: Place, end: Cursor, changes: int, seconds: int) -> Lease:
        number, token = self._next, secrets.token_hex(8)
        await self._connection.execute(
            f"UPDATE hub.subscription SET next_lease = next_lease + 1 WHERE {WHOSE}", *self._key
        )
        expire_time = await self._connection.fetchval(
            "INSERT INTO hub.subscription_lease (consumer_id, subscription_id, number,"
            " start_cursor, start_number, end_cursor, change_count, attempt, token, expire_time)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9,"
            " clock_timestamp() + make_interval(secs => $10)) RETURNING expire_time",
            *self._key,
            number,
            place.start.stored,
            place.start.number,
            end.stored,
            changes,
            place.attempt,
            token,
            float(seconds),
        )
        lease_id = f"{self._lineage}-{number}-{end.number}-{token}"
        return Lease(lease_id, end, changes, place.attempt, expire_time)

    async def acknowledge(self, lease_id: str) -> Cursor:
        """Acknowledge a lease; returns the place up to which everything is acknowledged.
        Idempotent.

        Raises CursorInvalid, LeaseUnknown, LeaseExpired and AcknowledgedBackwards.
        """
        check_epoch(undone=self._undone)
        number = await self._live(lease_id, again=True)
        await self._connection.execute(
            f"UPDATE hub.subscription_lease SET acknowledged = true WHERE {WHOSE} AND number = $3",
            *self._key,
            number,
        )
        return await self._moved()

    async def acknowledge_to(self, cursor: Cursor) -> Cursor:
        """Acknowledge the lease that ends at a cursor and all before it; returns the new position.

        Raises CursorInvalid, LeaseUnknown, LeaseExpired and AcknowledgedBackwards.
        """
        check_epoch(undone=self._undone)
        done = await self._acknowledged()
        await check_cursor(self._connection, cursor)
        if cursor.place < done.place:
            raise _acknowledged_backwards(done)
        if cursor.place == done.place:
            return done
        row = await self._connection.fetchrow(
            "SELECT expire_time <= clock_timestamp() AND NOT acknowledged AS expired"
            f" FROM hub.subscription_lease WHERE {WHOSE} AND end_cursor = $3"
            " ORDER BY number DESC LIMIT 1",
            *self._key,
            cursor.stored,
        )
        if row is None:
            raise LeaseUnknown("no lease of this subscription ends at this cursor")
        if row["expired"]:
            raise LeaseExpired(_LOST)
        rows = await self._connection.fetch(
            "SELECT number, start_cursor FROM hub.subscription_lease"
            f" WHERE {WHOSE} AND NOT acknowledged AND start_number <= $3",
            *self._key,
            cursor.number,
        )
        before = [row[0] for row in rows if Cursor.parse(row[1]).place < cursor.place]
        await self._connection.execute(
            f"UPDATE hub.subscription_lease SET acknowledged = true WHERE {WHOSE}"
            " AND number = ANY ($3::bigint[])",
            *self._key,
            before,
        )
        return await self._moved()

    async def extend(self, lease_id: str, seconds: int) -> Lease:
        """Let a lease expire ``seconds`` from now; 0 ends it.

        Raises CursorInvalid, LeaseUnknown, LeaseExpired and AcknowledgedBackwards.
        """
        check_epoch(undone=self._undone)
        row = await self._connection.fetchrow(
            "UPDATE hub.subscription_lease"
            " SET expire_time = clock_timestamp() + make_interval(secs => $4)"
            f" WHERE {WHOSE} AND number = $3 RETURNING *",
            *self._key,
            await self._live(lease_id),
            float(seconds),
        )
        assert row is not None, "it is there, and its subscription is locked"
        end = Cursor.parse(row["end_cursor"])
        return Lease(lease_id, end, row["change_count"], row["attempt"], row["expire_time"])

    async def reset(self, start: Cursor) -> None:
        """Move to another place; all leases end."""
        await self._connection.execute(
            f"DELETE FROM hub.subscription_lease WHERE {WHOSE}", *self._key
        )
        await self._connection.execute(
            "UPDATE hub.subscription SET position = $3, lineage = $4, update_time = now(),"
            " epoch = (SELECT epoch FROM hub.epoch_head)"
            f" WHERE {WHOSE}",
            *self._key,
            start.stored,
            secrets.token_hex(8),
        )

    async def _live(self, lease_id: str, *, again: bool = False) -> int:
        """The number of a live lease, or with ``again`` also of an acknowledged one."""
        match = _LEASE_ID.fullmatch(lease_id)
        if match is None or match[1] != self._lineage or int(match[2]) >= self._next:
            raise LeaseUnknown(UNKNOWN)
        number, end = int(match[2]), int(match[3])
        row = await self._connection.fetchrow(
            "SELECT acknowledged, token, expire_time <= clock_timestamp() AS expired"
            f" FROM hub.subscription_lease WHERE {WHOSE} AND number = $3",
            *self._key,
            number,
        )
        if row is not None and row["token"] != (match[4] or ""):
            raise LeaseUnknown(UNKNOWN)  # from a state of the database that was undone
        if row is not None and row["acknowledged"]:
            if again:
                return number
            raise _acknowledged_backwards(await self._acknowledged())
        if row is not None and not row["expired"]:
            return number
        done = await self._acknowledged()
        if row is None and end <= done.number:
            raise _acknowledged_backwards(done)
        raise LeaseExpired(_LOST)

    async def _acknowledged(self) -> Cursor:
        rows = await self._connection.fetch(
            f"SELECT start_cursor FROM hub.subscription_lease WHERE {WHOSE} AND NOT acknowledged"
            " ORDER BY start_number",
            *self._key,
        )
        return first_cursor([row[0] for row in rows]) or self._position

    async def _moved(self) -> Cursor:
        """Delete leases acknowledged long ago; returns the place up to which everything is
        acknowledged."""
        await self._connection.execute(
            f"DELETE FROM hub.subscription_lease WHERE {WHOSE} AND acknowledged AND number < $3",
            *self._key,
            self._next - KEPT_LEASES,
        )
        await self._connection.execute(
            f"UPDATE hub.subscription SET update_time = now() WHERE {WHOSE}", *self._key
        )
        return await self._acknowledged()


async def lock_subscription(
    connection: Connection, consumer_id: str, subscription_id: str
) -> LockedSubscription:
    """Lock a subscription for the rest of the transaction. Raises SubscriptionNotFound."""
    row = await connection.fetchrow(
        "SELECT *, epoch < (SELECT epoch FROM hub.epoch_head) AS undone FROM hub.subscription"
        f" WHERE {WHOSE} FOR UPDATE",
        consumer_id,
        subscription_id,
    )
    if row is None:
        raise subscription_absent(subscription_id)
    return LockedSubscription(connection, row)


async def next_place(
    connection: Connection, subscription: Subscription
) -> tuple[Place | None, float]:
    """Like ``LockedSubscription.place`` but without a lock: the result may be out of date."""
    key = (subscription.consumer_id, subscription.subscription_id)
    fresh = Place(subscription.lineage, subscription.position)
    return await _choose_place(connection, key, subscription.terms.ordered, fresh)


async def list_outstanding(
    connection: Connection, consumer_id: str, subscription_id: str, lease_ids: Sequence[str]
) -> Sequence[str]:
    """Those of ``lease_ids`` that are neither acknowledged nor expired."""
    numbers = {int(lease_id.split("-")[1]): lease_id for lease_id in lease_ids}
    rows = await connection.fetch(
        f"SELECT number FROM hub.subscription_lease WHERE {WHOSE} AND number = ANY ($3::bigint[])"
        " AND NOT acknowledged AND expire_time > clock_timestamp()",
        consumer_id,
        subscription_id,
        list(numbers),
    )
    return [numbers[row[0]] for row in rows]


async def _choose_place(
    connection: Connection, key: tuple[str, str], ordered: bool, fresh: Place
) -> tuple[Place | None, float]:
    live = await connection.fetchrow(
        "SELECT count(*) AS count, extract(epoch FROM min(expire_time) - clock_timestamp())::float8"
        f" AS seconds FROM hub.subscription_lease WHERE {WHOSE} AND NOT acknowledged"
        " AND expire_time > clock_timestamp()",
        *key,
    )
    assert live is not None, "a count has a row"
    if live["count"] >= (1 if ordered else MAX_LEASES):
        return None, max(0.0, live["seconds"])
    rows = await connection.fetch(
        f"SELECT * FROM hub.subscription_lease WHERE {WHOSE} AND NOT acknowledged"
        " AND expire_time <= clock_timestamp() ORDER BY start_number, number",
        *key,
    )
    place = first_cursor([row["start_cursor"] for row in rows])
    if place is None:
        return fresh, 0.0
    row = next(row for row in rows if row["start_cursor"] == place.stored)
    start, end = Cursor.parse(row["start_cursor"]), Cursor.parse(row["end_cursor"])
    return Place(fresh.lineage, start, end, row["number"], row["attempt"] + 1), 0.0


def _acknowledged_backwards(done: Cursor) -> AcknowledgedBackwards:
    return AcknowledgedBackwards("these changes were acknowledged before", places={"cursor": done})
