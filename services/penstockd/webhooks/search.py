"""Reads deliveries, attempts, notices and figures for calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import orjson

from penstockd.store.database import Connection
from penstockd.webhooks.errors import DeliveryNotFound
from penstockd.webhooks.events import attach_events
from penstockd.webhooks.model import Cause, Delivery, DeliveryState

_COLUMNS = """
d.delivery_id, d.webhook_id, d.cause, d.event_type, cardinality(d.event_ids) AS event_count,
d.dataset, d.key, d.state, d.reason, d.attempt_count, d.event_time, d.create_time, d.next_time,
d.finish_time
"""
_ATTEMPTS = """
SELECT attempt, start_time, latency_ms, delivered, reason, address, request_head, body_bytes,
       status, reply_head, reply_body, next_time
FROM hub.webhook_attempt WHERE delivery_id = $1 ORDER BY attempt
"""
_WAITING = "state IN ('PENDING', 'SENDING', 'PARKED')"
_FIGURES = """
SELECT count(*), count(*) FILTER (WHERE delivered), count(*) FILTER (WHERE attempt > 1),
       percentile_disc(ARRAY[0.5, 0.95, 0.99]) WITHIN GROUP (ORDER BY latency_ms)
FROM hub.webhook_attempt WHERE webhook_id = $1 AND start_time >= $2
"""


@dataclass(frozen=True, slots=True)
class Filter:
    """The deliveries to list; an unset field matches all."""

    state: DeliveryState | None = None
    reason: str = ""
    event_type: str = ""
    key: str = ""
    start: datetime | None = None
    end: datetime | None = None


@dataclass(frozen=True, slots=True)
class Listed:
    """A delivery in a list: ``values`` by the names of the message's fields."""

    values: Mapping[str, Any]

    @property
    def delivery_id(self) -> str:
        """Its id."""
        return str(self.values["delivery_id"])

    def withheld(self) -> Listed:
        """The same without the record's key."""
        return Listed({**self.values, "key": None})


@dataclass(frozen=True, slots=True)
class Tried:
    """An attempt as it was stored."""

    number: int
    start_time: datetime
    latency_ms: float
    delivered: bool
    reason: str
    address: str
    request_head: str
    body_bytes: int
    status: int | None
    reply_head: str
    reply_body: bytes
    next_time: datetime | None

    def withheld(self) -> Tried:
        """The same without the contents of request and reply."""
        return replace(self, request_head="", reply_head="", reply_body=b"")


@dataclass(frozen=True, slots=True)
class Figures:
    """The results of deliveries; latencies in ms, ages in seconds."""

    attempts: int
    delivered: int
    retries: int
    latencies: Sequence[float]
    waiting: int
    oldest: datetime | None
    dead: Mapping[str, int] = field(default_factory=dict)


async def list_deliveries(
    connection: Connection, webhooks: Sequence[str], wanted: Filter, before: str, limit: int
) -> list[Listed]:
    """Deliveries of some webhooks, newest first, those before an id ("": from the newest)."""
    rows = await connection.fetch(
        f"SELECT {_COLUMNS} FROM hub.webhook_delivery AS d"
        " WHERE webhook_id = ANY ($1) AND ($2::text IS NULL OR state = $2)"
        " AND ($3 = '' OR reason = $3) AND ($4 = '' OR event_type = $4) AND ($5 = '' OR key = $5)"
        " AND ($6::timestamptz IS NULL OR create_time >= $6)"
        " AND ($7::timestamptz IS NULL OR create_time < $7)"
        " AND ($8 = '' OR delivery_id < $8) ORDER BY delivery_id DESC LIMIT $9",
        list(webhooks),
        wanted.state.value if wanted.state is not None else None,
        wanted.reason,
        wanted.event_type,
        wanted.key,
        wanted.start,
        wanted.end,
        before,
        limit,
    )
    return [Listed(dict(row)) for row in rows]


async def find_delivery(connection: Connection, webhook_id: str, delivery_id: str) -> Listed:
    """One delivery of a webhook. Raises DeliveryNotFound."""
    row = await connection.fetchrow(
        f"SELECT {_COLUMNS} FROM hub.webhook_delivery AS d"
        " WHERE webhook_id = $1 AND delivery_id = $2",
        webhook_id,
        delivery_id,
    )
    if row is None:
        raise DeliveryNotFound(f"there is no delivery '{delivery_id}'")
    return Listed(dict(row))


async def read_deliveries(
    connection: Connection, webhook_id: str, delivery_ids: Sequence[str], *, sending: bool = False
) -> list[Delivery]:
    """Deliveries with their events, as ``claim`` returns them.

    With ``sending`` only those that are being sent, and locked.
    """
    lock = " AND state = 'SENDING' FOR UPDATE" if sending else ""
    rows = await connection.fetch(
        "SELECT delivery_id, webhook_id, cause, event_type, event_ids, previous, notice, order_key,"
        " attempt_count + 1, tries + 1, event_time FROM hub.webhook_delivery"
        f" WHERE webhook_id = $1 AND delivery_id = ANY ($2){lock}",
        webhook_id,
        list(delivery_ids),
    )
    found = [
        Delivery(
            delivery_id=row[0],
            webhook_id=row[1],
            cause=Cause(row[2]),
            event_type=row[3],
            event_ids=list(row[4]),
            previous=list(row[5]),
            notice=orjson.loads(row[6]) if row[6] is not None else None,
            order_key=row[7],
            attempt=row[8],
            tries=row[9],
            event_time=row[10],
        )
        for row in rows
    ]
    await attach_events(connection, found)
    return found


async def list_attempts(connection: Connection, delivery_id: str) -> list[Tried]:
    """The attempts of a delivery, oldest first."""
    return [Tried(*row) for row in await connection.fetch(_ATTEMPTS, delivery_id)]


async def list_notices(
    connection: Connection, consumer_id: str, before: int, limit: int
) -> list[Mapping[str, Any]]:
    """An owner's notices, newest first, those before an id (0: from the newest)."""
    rows = await connection.fetch(
        "SELECT notice_id, type, webhook_id, data, create_time FROM hub.webhook_notice"
        " WHERE consumer_id = $1 AND ($2::bigint = 0 OR notice_id < $2)"
        " ORDER BY notice_id DESC LIMIT $3",
        consumer_id,
        before,
        limit,
    )
    return [dict(row) for row in rows]


async def measure_deliveries(connection: Connection, webhook_id: str, since: datetime) -> Figures:
    """The results of a webhook's deliveries since a time, and the deliveries that wait now."""
    tried = await connection.fetchrow(_FIGURES, webhook_id, since)
    waiting = await connection.fetchrow(
        f"SELECT count(*), min(create_time) FROM hub.webhook_delivery"
        f" WHERE webhook_id = $1 AND {_WAITING}",
        webhook_id,
    )
    assert tried is not None and waiting is not None, "aggregates give a row"
    dead = await connection.fetch(
        "SELECT reason, count(*) FROM hub.webhook_delivery"
        " WHERE webhook_id = $1 AND state = 'DEAD' GROUP BY reason",
        webhook_id,
    )
    return Figures(
        tried[0],
        tried[1],
        tried[2],
        tried[3] or (),
        waiting[0],
        waiting[1],
        {row[0]: row[1] for row in dead},
    )
