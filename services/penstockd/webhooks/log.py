"""The feed, as webhooks read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

from penstockd.catalog import Catalog
from penstockd.feed.event import Event
from penstockd.feed.reader import read_events
from penstockd.policy.lens import Lens
from penstockd.store.cursor import Cursor, cursor_at
from penstockd.store.database import Database
from penstockd.webhooks.intake import Stretch
from penstockd.webhooks.model import Occurrence, Sight


class FeedLog:
    """Reads stretches of the log, and single events again, through lenses."""

    def __init__(self, database: Database, catalog: Catalog) -> None:
        self._database, self._catalog = database, catalog

    async def read(self, lenses: Mapping[str, Lens], cursor: Cursor, upto: int | Cursor) -> Stretch:
        """The events after a cursor, of numbers to ``upto``, or fewer where they are large; see
        ``read_events``.

        Raises CursorExpired, CursorInvalid, DatabaseUnavailable.
        """
        batch = await read_events(self._database, self._catalog, lenses, cursor, upto)
        events = [_occurrence(e, lenses[e.dataset].view_id) for e in batch.events]
        return Stretch(events, batch.cursor, batch.more)

    async def reread(self, sight: Sight, event: Occurrence) -> Occurrence | None:
        """The event as another lens shows it; None if it shows nothing of it.

        Raises CursorExpired if the log has it no longer.
        """
        lenses = {event.dataset: cast(Lens, sight)}
        async with self._database.connection() as connection:
            before = await cursor_at(connection, event.number - 1)
        end = replace(before, told=(event.dataset, event.key))
        # If much followed from the transaction: the record alone. A key that is shorter stands
        # before it.
        within = replace(end, told=(event.dataset, event.key[:-1]), mark=event.mark)
        for start in (before, within):
            stretch = await self.read(lenses, start, end)
            for found in stretch.events:
                if found.key == event.key and found.number == event.number:
                    return replace(found, view_id=sight.view_id)
            if stretch.cursor.place >= end.place:
                break
        return None


def _occurrence(event: Event, view_id: str) -> Occurrence:
    return Occurrence(
        view_id,
        event.number,
        event.transaction,
        event.dataset,
        event.key,
        event.operation.name.lower(),
        event.after,
        event.changed,
        event.commit_time,
    )
