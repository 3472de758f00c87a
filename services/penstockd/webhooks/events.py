"""Events for webhooks: read from the log through lenses, and stored until they are sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import structlog

from penstockd.catalog import Catalog
from penstockd.feed.event import Event, FeedOperation
from penstockd.feed.reader import read_events
from penstockd.policy.lens import Lens
from penstockd.store.cursor import Cursor, cursor_at
from penstockd.store.database import Connection, Database
from penstockd.webhooks.model import Delivery, Occurrence

_PUT = """
INSERT INTO hub.webhook_event
    (view_id, number, transaction, dataset, key, operation, after, changed, commit_time, mark)
SELECT view_id, number, transaction, dataset, key, operation, after,
       coalesce(string_to_array(nullif(changed, ''), ','), '{}'), commit_time,
       coalesce(
           (SELECT t.mark FROM hub.log_transaction AS t WHERE t.last_number = e.transaction), '\\x')
FROM unnest($1::text[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::smallint[],
            $7::bytea[], $8::text[], $9::timestamptz[])
     AS e (view_id, number, transaction, dataset, key, operation, after, changed, commit_time)
RETURNING event_id, number, dataset, key, operation
"""
_READ = """
SELECT event_id, number, transaction, dataset, key, operation, after, changed, commit_time,
       view_id, mark
FROM hub.webhook_event WHERE event_id = ANY ($1)
"""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class EventStretch:
    """Events of a stretch of the log, and the cursor at its end."""

    events: Sequence[Occurrence]
    cursor: Cursor
    more: bool


class FeedLog:
    """Reads stretches of the log, and single events again, through lenses."""

    def __init__(self, database: Database, catalog: Catalog) -> None:
        self._database, self._catalog = database, catalog

    async def read(
        self, lenses: Mapping[str, Lens], cursor: Cursor, upto: int | Cursor
    ) -> EventStretch:
        """The events after a cursor up to ``upto``, fewer if they are large. See ``read_events``.

        Raises CursorExpired, CursorInvalid, DatabaseUnavailable.
        """
        batch = await read_events(self._database, self._catalog, lenses, cursor, upto)
        events = [_make_occurrence(e, lenses[e.dataset]) for e in batch.events]
        return EventStretch(events, batch.cursor, batch.more)

    async def reread(self, lens: Lens, event: Occurrence) -> Occurrence | None:
        """The event as another lens shows it; None if that lens shows nothing of it.

        Raises CursorExpired if the log no longer has it.
        """
        lenses = {event.dataset: lens}
        async with self._database.connection() as connection:
            before = await cursor_at(connection, event.number - 1)
        end = replace(before, told=(event.dataset, event.key))
        # If the transaction has too many events for one stretch, start just before this record: the
        # shortened key sorts before the record's own.
        within = replace(end, told=(event.dataset, event.key[:-1]), mark=event.mark)
        for start in (before, within):
            stretch = await self.read(lenses, start, end)
            for found in stretch.events:
                if found.key == event.key and found.number == event.number:
                    return replace(found, mark=event.mark)
            if stretch.cursor.place >= end.place:
                break
        return None


async def put_events(connection: Connection, events: Sequence[Occurrence]) -> list[int]:
    """Store events; returns their ids, in order."""
    rows = await connection.fetch(
        _PUT,
        [e.view_id for e in events],
        [e.number for e in events],
        [e.transaction for e in events],
        [e.dataset for e in events],
        [e.key for e in events],
        [int(e.operation) for e in events],
        [e.after for e in events],
        [",".join(e.changed) for e in events],
        [e.commit_time for e in events],
    )
    ids = {(row[1], row[2], row[3], row[4]): int(row[0]) for row in rows}
    return [ids[e.number, e.dataset, e.key, int(e.operation)] for e in events]


async def attach_events(connection: Connection, deliveries: Sequence[Delivery]) -> None:
    """Read the events of deliveries. Drops those that are gone, with their previous numbers."""
    wanted = sorted({i for d in deliveries for i in d.event_ids})
    if not wanted:
        return
    rows = await connection.fetch(_READ, wanted)
    known = {row[0]: _occurrence_of(row) for row in rows}
    for delivery in deliveries:
        told = zip(delivery.event_ids, delivery.previous, strict=True)
        kept = [(known[i], previous) for i, previous in told if i in known]
        if len(kept) < len(delivery.event_ids):
            _log.error("webhook_events_gone", delivery=delivery.delivery_id)
        delivery.events = [event for event, _ in kept]
        delivery.previous = [previous for _, previous in kept]


def _make_occurrence(event: Event, lens: Lens) -> Occurrence:
    """An event of the log as a lens shows it, without the record's earlier content."""
    return Occurrence(
        event.number,
        event.transaction,
        event.dataset,
        event.key,
        event.operation,
        None,
        event.after,
        event.changed,
        event.commit_time,
        lens.view_id,
    )


def _occurrence_of(row: Any) -> Occurrence:
    """An event from its stored row."""
    _, number, transaction, dataset, key, operation, after, changed, commit_time, *seen = row
    what = FeedOperation(operation)
    return Occurrence(
        number, transaction, dataset, key, what, None, after, tuple(changed), commit_time, *seen
    )
