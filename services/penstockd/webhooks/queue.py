"""The queue of deliveries in the store: added, claimed, settled, released.

A claimed delivery is SENDING until its attempt is settled, and has the term of the keeper that
claimed it. The keeper of the next term releases what the earlier one left, and sends it again under
the same id; results of an earlier term no longer change anything.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import orjson

from penstockd.store.database import Connection
from penstockd.webhooks.events import attach_events
from penstockd.webhooks.model import Cause, Delivery, DeliveryState, Reason

_COLUMNS = (
    "delivery_id", "webhook_id", "cause", "event_type", "event_ids", "previous", "notice",
    "dataset", "key", "order_key", "state", "reason", "event_time", "create_time", "next_time",
    "finish_time",
)  # fmt: skip

#: For each endpoint as many as it has room for, those due longest first; skips rows that another
#: transaction has locked.
_DUE = """
SELECT found.delivery_id, r.webhook_id, found.stored_bytes
FROM unnest($1::text[], $2::integer[]) AS r (webhook_id, room) CROSS JOIN LATERAL (
    SELECT d.delivery_id, d.next_time, (
        SELECT coalesce(sum(octet_length(e.after)), 0)::bigint
        FROM hub.webhook_event AS e WHERE e.event_id = ANY (d.event_ids)) AS stored_bytes
    FROM hub.webhook_delivery AS d
    WHERE d.webhook_id = r.webhook_id AND d.state = 'PENDING' AND d.next_time <= $3
    ORDER BY d.next_time, d.delivery_id LIMIT r.room FOR UPDATE OF d SKIP LOCKED
) AS found ORDER BY found.next_time, found.delivery_id
"""
_CLAIM = """
UPDATE hub.webhook_delivery AS d SET state = 'SENDING', next_time = NULL, claim_term = $2
WHERE d.delivery_id = ANY ($1)
RETURNING d.delivery_id, d.webhook_id, d.cause, d.event_type, d.event_ids, d.previous,
          d.notice, d.order_key, d.attempt_count + 1, d.tries + 1, d.event_time
"""
_SETTLE = """
UPDATE hub.webhook_delivery AS d
SET state = s.state, reason = s.reason, next_time = s.next_time, finish_time = s.finish_time,
    attempt_count = d.attempt_count + s.counted, tries = d.tries + s.counted
FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::timestamptz[],
            $6::integer[], $7::bigint[])
     AS s (delivery_id, state, reason, next_time, finish_time, counted, claim_term)
WHERE d.delivery_id = s.delivery_id AND d.state = 'SENDING'
  AND d.claim_term IS NOT DISTINCT FROM s.claim_term
"""
_ATTEMPTS = """
INSERT INTO hub.webhook_attempt (delivery_id, attempt, webhook_id, start_time, latency_ms,
    delivered, reason, address, request_head, body_bytes, status, reply_head, reply_body, next_time)
SELECT * FROM unnest($1::text[], $2::integer[], $3::text[], $4::timestamptz[], $5::real[],
    $6::boolean[], $7::text[], $8::text[], $9::text[], $10::integer[], $11::integer[], $12::text[],
    $13::bytea[], $14::timestamptz[])
ON CONFLICT (delivery_id, attempt) DO NOTHING
"""
#: Frees the first waiting delivery of each order key, if none of the key is in progress.
_PROMOTE = """
UPDATE hub.webhook_delivery AS d SET state = 'PENDING', next_time = $3
FROM unnest($1::text[], $2::text[]) AS k (webhook_id, order_key)
WHERE d.state = 'PARKED' AND d.delivery_id = (
    SELECT n.delivery_id FROM hub.webhook_delivery AS n
    WHERE n.webhook_id = k.webhook_id AND n.order_key = k.order_key
    AND n.state IN ('PENDING', 'SENDING', 'PARKED') ORDER BY n.delivery_id LIMIT 1)
"""
_WAITING_KEYS = """
SELECT DISTINCT k.webhook_id, k.order_key
FROM unnest($1::text[], $2::text[]) AS k (webhook_id, order_key)
WHERE EXISTS (SELECT FROM hub.webhook_delivery AS d WHERE d.webhook_id = k.webhook_id
    AND d.order_key = k.order_key AND d.state IN ('PENDING', 'SENDING', 'PARKED'))
"""
_REVIVE = """
UPDATE hub.webhook_delivery
SET state = 'PENDING', reason = '', tries = 0, next_time = $2, finish_time = NULL
WHERE webhook_id = $1
"""
#: Parks deliveries behind an earlier one of their record.
_QUEUE_UP = """
UPDATE hub.webhook_delivery AS d SET state = 'PARKED', next_time = NULL
WHERE d.webhook_id = $1 AND d.state = 'PENDING' AND d.order_key IS NOT NULL AND EXISTS (
    SELECT FROM hub.webhook_delivery AS e
    WHERE e.webhook_id = d.webhook_id AND e.order_key = d.order_key
    AND e.delivery_id < d.delivery_id AND e.state IN ('PENDING', 'SENDING', 'PARKED'))
"""
_ORDER_LOCK = "SELECT pg_advisory_xact_lock(hashtext('penstock.webhook-order'))"


class DueDelivery(NamedTuple):
    """A delivery that could be claimed. ``stored_bytes`` is the size of its records."""

    delivery_id: str
    webhook_id: str
    stored_bytes: int


@dataclass(slots=True)
class Draft:
    """A delivery to be put into the queue."""

    webhook_id: str
    cause: Cause
    event_type: str
    event_time: datetime
    events: Sequence[int] = ()
    previous: Sequence[int] = ()
    notice: Mapping[str, Any] | None = None
    dataset: str | None = None
    key: str | None = None
    order_key: str | None = None
    state: DeliveryState = DeliveryState.PENDING
    reason: str = ""
    delivery_id: str = ""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try to deliver, as it is stored."""

    start_time: datetime
    latency_ms: float
    delivered: bool
    reason: str
    address: str = ""
    request_head: str = ""
    body_bytes: int = 0
    status: int | None = None
    reply_head: str = ""
    reply_body: bytes = b""


@dataclass(frozen=True, slots=True)
class SendResult:
    """The result of a claimed delivery. Without an ``attempt`` nothing was sent."""

    delivery: Delivery
    state: DeliveryState
    reason: str = ""
    next_time: datetime | None = None
    attempt: Attempt | None = None


def new_id() -> str:
    """A message id; later ids sort later."""
    return f"msg_{time.time_ns() // 1000:014x}{os.urandom(9).hex()}"


async def put_deliveries(
    connection: Connection, drafts: Sequence[Draft], at: datetime
) -> list[str]:
    """Queue deliveries, due at once, or parked behind others of their record.

    Returns their ids, in order. The connection must be in a transaction.
    """
    await _park_deliveries(connection, drafts)
    records = []
    for draft in drafts:
        draft.delivery_id = draft.delivery_id or new_id()
        records.append(
            (
                draft.delivery_id, draft.webhook_id, draft.cause.value, draft.event_type,
                list(draft.events), list(draft.previous),
                orjson.dumps(draft.notice).decode() if draft.notice is not None else None,
                draft.dataset, draft.key, draft.order_key, draft.state.value, draft.reason,
                draft.event_time, at,
                at if draft.state is DeliveryState.PENDING else None,
                at if draft.state is DeliveryState.DEAD else None,
            )
        )  # fmt: skip
    await connection.copy_records_to_table(
        "webhook_delivery", schema_name="hub", columns=_COLUMNS, records=records
    )
    return [d.delivery_id for d in drafts]


async def _park_deliveries(connection: Connection, drafts: Iterable[Draft]) -> None:
    """Park ordered deliveries, except the first of each record that has none before it."""
    ordered = [d for d in drafts if d.order_key is not None and d.state is DeliveryState.PENDING]
    if not ordered:
        return
    await connection.execute(_ORDER_LOCK)
    keys = list({(d.webhook_id, d.order_key) for d in ordered})
    rows = await connection.fetch(_WAITING_KEYS, [k[0] for k in keys], [k[1] for k in keys])
    busy = {(row[0], row[1]) for row in rows}
    for draft in ordered:
        place = (draft.webhook_id, draft.order_key)
        if place in busy:
            draft.state = DeliveryState.PARKED
        busy.add(place)


async def list_due(
    connection: Connection, room: Mapping[str, int], at: datetime
) -> list[DueDelivery]:
    """Lock due deliveries of some endpoints, at most as many of each as it has room for.

    Returns them with their sizes, those due longest first, to ``claim_listed`` some of them. The
    connection must be in a transaction.
    """
    rows = await connection.fetch(_DUE, list(room), list(room.values()), at)
    return [DueDelivery(*row) for row in rows]


async def claim_listed(
    connection: Connection, chosen: Sequence[str], term: int | None = None
) -> list[Delivery]:
    """Claim deliveries that ``list_due`` has locked in this transaction.

    ``term`` is that of the keeper's lease, None for a pull; results under other terms are ignored.
    """
    rows = await connection.fetch(_CLAIM, chosen, term)
    found = [
        Delivery(
            row[0], row[1], Cause(row[2]), row[3], list(row[4]), list(row[5]),
            orjson.loads(row[6]) if row[6] is not None else None, *list(row)[7:],
        )
        for row in rows
    ]  # fmt: skip
    for delivery in found:
        delivery.claim_term = term
    await attach_events(connection, found)
    found.sort(key=lambda d: d.delivery_id)
    return found


async def return_lent(connection: Connection, webhook_id: str, at: datetime) -> None:
    """Make lent deliveries that were not settled in time pending again."""
    await connection.execute(
        "UPDATE hub.webhook_delivery SET state = 'PENDING'"
        " WHERE webhook_id = $1 AND state = 'SENDING' AND next_time <= $2",
        webhook_id,
        at,
    )


async def lend_deliveries(
    connection: Connection, deliveries: Sequence[Delivery], until: datetime
) -> None:
    """Lend claimed deliveries to a caller that pulls, until a time."""
    await connection.execute(
        "UPDATE hub.webhook_delivery SET next_time = $2 WHERE delivery_id = ANY ($1)",
        [d.delivery_id for d in deliveries],
        until,
    )


async def next_due(connection: Connection, webhook_id: str, after: datetime) -> datetime | None:
    """When the next delivery after a time is due or comes back; None if there is none."""
    due: datetime | None = await connection.fetchval(
        "SELECT min(next_time) FROM hub.webhook_delivery"
        " WHERE webhook_id = $1 AND state IN ('PENDING', 'SENDING') AND next_time > $2",
        webhook_id,
        after,
    )
    return due


async def settle_results(
    connection: Connection, results: Sequence[SendResult], at: datetime
) -> None:
    """Store the results of claimed deliveries, and free those parked behind them.

    The connection must be in a transaction.
    """
    ended = (DeliveryState.DELIVERED, DeliveryState.DEAD)
    await connection.execute(
        _SETTLE,
        [r.delivery.delivery_id for r in results],
        [r.state.value for r in results],
        [r.reason for r in results],
        [r.next_time for r in results],
        [at if r.state in ended else None for r in results],
        [int(r.attempt is not None) for r in results],
        [r.delivery.claim_term for r in results],
    )
    tried = [(r, r.attempt) for r in results if r.attempt is not None]
    if tried:
        await connection.execute(
            _ATTEMPTS,
            [r.delivery.delivery_id for r, _ in tried],
            [r.delivery.attempt for r, _ in tried],
            [r.delivery.webhook_id for r, _ in tried],
            [a.start_time for _, a in tried],
            [a.latency_ms for _, a in tried],
            [a.delivered for _, a in tried],
            [a.reason for _, a in tried],
            [a.address for _, a in tried],
            [a.request_head for _, a in tried],
            [a.body_bytes for _, a in tried],
            [a.status for _, a in tried],
            [a.reply_head for _, a in tried],
            [a.reply_body for _, a in tried],
            [r.next_time for r, _ in tried],
        )
    keys = {
        (r.delivery.webhook_id, r.delivery.order_key)
        for r in results
        if r.delivery.order_key is not None and r.state in ended
    }
    if keys:
        await connection.execute(_ORDER_LOCK)
        await connection.execute(_PROMOTE, [k[0] for k in keys], [k[1] for k in keys], at)


async def release_all(connection: Connection, at: datetime) -> int:
    """Release the deliveries that an earlier keeper had claimed; returns the number.

    Deliveries lent to a command that pulls return by themselves at a certain time.
    """
    done = await connection.execute(
        "UPDATE hub.webhook_delivery SET state = 'PENDING', next_time = $1"
        " WHERE state = 'SENDING' AND next_time IS NULL",
        at,
    )
    return int(done.rpartition(" ")[2])


async def bury_deliveries(
    connection: Connection, webhook_id: str, reason: Reason, at: datetime
) -> int:
    """Mark all waiting deliveries of an endpoint as dead, for a reason; returns the number."""
    done = await connection.execute(
        "UPDATE hub.webhook_delivery SET state = 'DEAD', reason = $2, next_time = NULL,"
        " finish_time = $3 WHERE webhook_id = $1 AND state IN ('PENDING', 'PARKED')",
        webhook_id,
        reason.value,
        at,
    )
    return int(done.rpartition(" ")[2])


async def requeue_delivery(
    connection: Connection, webhook_id: str, delivery_id: str, at: datetime
) -> None:
    """Let one delivery be tried again, under its id and from the start of its schedule."""
    await connection.execute(
        f"{_REVIVE} AND delivery_id = $3 AND state <> 'SENDING'", webhook_id, at, delivery_id
    )


async def requeue_dead(
    connection: Connection,
    webhook_id: str,
    at: datetime,
    since: datetime,
    until: datetime | None = None,
) -> int:
    """Let all dead deliveries of a period be tried again, as ``requeue_delivery`` does.

    The order within each record is kept. Returns the number. The connection must be in a
    transaction.
    """
    await connection.execute(_ORDER_LOCK)
    done = await connection.execute(
        f"{_REVIVE} AND state = 'DEAD' AND create_time >= $3"
        " AND ($4::timestamptz IS NULL OR create_time < $4)",
        webhook_id,
        at,
        since,
        until,
    )
    await connection.execute(_QUEUE_UP, webhook_id)
    return int(done.rpartition(" ")[2])


async def promote_stuck(connection: Connection, at: datetime) -> None:
    """Free parked deliveries that wait for nothing.

    The deliveries before them ended without ``settle_results``.
    """
    await connection.execute(_ORDER_LOCK)
    rows = await connection.fetch(
        "SELECT DISTINCT webhook_id, order_key FROM hub.webhook_delivery WHERE state = 'PARKED'"
    )
    if rows:
        await connection.execute(_PROMOTE, [r[0] for r in rows], [r[1] for r in rows], at)
