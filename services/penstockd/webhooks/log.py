"""The feed, as webhooks read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

from penstockd.catalog import Catalog
from penstockd.feed.event import Event
from penstockd.feed.reader import read_events
from penstockd.policy.lens import Lens
from penstockd.store.cursor import Cursor
from penstockd.store.database import Database
from penstockd.webhooks.intake import Stretch
from penstockd.webhooks.model import Occurrence, Sight


class FeedLog:
    """Reads stretches of the log, and single events again, through lenses."""

    def __init__(self, database: Database, catalog: Catalog) -> None:
        self._database, self._catalog = database, catalog
        self._epoch = ""

    async def read(self, lenses: Mapping[str, Lens], cursor: Cursor, upto: int) -> Stretch:
        """The events after a cursor, of numbers to ``upto``, or fewer where they are large.

        Raises CursorExpired, CursorInvalid, DatabaseUnavailable.
        """
        batch = await read_events(self._database, self._catalog, lenses, cursor, upto)
        events = [_occurrence(e, lenses[e.dataset].view_id) for e in batch.events]
        return Stretch(events, batch.cursor, batch.more)

    async def reread(self, sight: Sight, event: Occurrence) -> Occurrence | None:
        """The event as another lens shows it; None if it shows nothing of it.

        Raises CursorExpired if the log has it no longer.
        """
        lens = cast(Lens, sight)
        cursor = Cursor(await self._log_epoch(), event.number - 1)
        stretch = await self.read({event.dataset: lens}, cursor, event.number)
        same = [e for e in stretch.events if e.key == event.key and e.number == event.number]
        return replace(same[0], view_id=sight.view_id) if same else None

    async def _log_epoch(self) -> str:
        if not self._epoch:
            async with self._database.connection() as connection:
                self._epoch = await connection.fetchval("SELECT epoch FROM hub.log_head")
        return self._epoch


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
