"""Reads stretches of the log for leases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from penstockd.feed.broadcast import STRIDE, Broadcast
from penstockd.feed.event import Event
from penstockd.feed.source import FeedSource
from penstockd.store.cursor import Cursor, cursor_at, find_numbered, still_ahead
from penstockd.store.database import Database


@dataclass(frozen=True, slots=True)
class Bounds:
    """The most changes and bytes of a stretch. One change and its consequences are split only if
    they are too large to read at once (see ``read_events``)."""

    changes: int
    size: int


@dataclass(frozen=True, slots=True)
class LeaseStretch:
    """Changes in order, and the cursor after them."""

    events: Sequence[Event]
    end: Cursor


async def read_stretch(
    feed: Broadcast,
    database: Database,
    source: FeedSource,
    start: Cursor,
    upto: Cursor,
    bounds: Bounds,
) -> LeaseStretch:
    """The changes after ``start``, at most up to ``upto``, within bounds.

    The stretch ends with a whole transaction, unless the first one alone is too large. More changes
    may follow it; it is empty only if there are none up to ``upto``. Raises CursorInvalid,
    CursorExpired and DatabaseUnavailable.
    """
    events: list[Event] = []
    reached, whole, step, size = start, True, bounds.changes, 0
    while reached.place < upto.place and _has_room(events, size, bounds):
        further = reached.number + step
        batch = await feed.read_shaped(source, reached, upto if upto.end <= further else further)
        found = [event for event in batch.events if source.wants(event)]
        step = max(1, bounds.changes - len(events) - len(found)) if found else 2 * step
        step = min(step, STRIDE)
        events += found
        size += sum(event.size for event in found)
        reached, whole = batch.cursor, batch.whole
    number = fit_events(events, bounds, reached.end, whole=whole)
    if number == reached.end:
        return LeaseStretch(events, reached)
    end = await _cursor_at(database, start, number)
    return LeaseStretch([event for event in events if event.number <= number], end)


def _has_room(events: Sequence[Event], size: int, bounds: Bounds) -> bool:
    """Whether another read can add changes."""
    return len(events) <= bounds.changes // 2 and size <= bounds.size // 2


def fit_events(events: Sequence[Event], bounds: Bounds, reached: int, *, whole: bool) -> int:
    """The number up to which events stay within bounds. They were read up to ``reached``, which
    ends a transaction and all its consequences if it is ``whole``."""
    count = _count_fitting(events, bounds)
    if count == len(events):
        if whole or not events or events[-1].transaction < reached:
            return reached
        broken = events[-1].transaction
    else:
        broken = events[count].transaction
    before = [event for event in events[:count] if event.transaction < broken]
    if before:
        return before[-1].transaction
    if count == len(events):
        return reached
    over = events[count].number
    return over if events[0].number == over else over - 1


def _count_fitting(events: Sequence[Event], bounds: Bounds) -> int:
    """How many of the first events are within bounds."""
    size = 0
    for i, event in enumerate(events):
        size += event.size
        if i == bounds.changes or (i and size > bounds.size):
            return i
    return len(events)


async def _cursor_at(database: Database, start: Cursor, number: int) -> Cursor:
    """The cursor at a number after ``start``."""
    async with database.connection() as connection:
        places = await find_numbered(connection, start)
        place = await cursor_at(connection, number)
    return replace(place, ahead=still_ahead(start, places, number))
