"""Reads the log through Views: the changes that each shows, and other events that follow from them.

A View is judged at the ends of transactions: what it showed before one, and what it shows after. A
row rule may follow references; then a change of one record can bring others into a View or take
them out. Those are reported at the end of the transaction that moved them. They can be many and
large, so each reading is bounded in bytes, and may end among them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, replace

from penstockd.budget import LITTLE, let_others_run, offload_large, run_offloaded
from penstockd.catalog import Catalog
from penstockd.feed.dependents import Dependents, FollowedChange
from penstockd.feed.event import Event, EventBatch, FeedOperation
from penstockd.feed.past import Past, PastQuestion
from penstockd.policy.lens import Lens
from penstockd.store import writer
from penstockd.store.cursor import (
    Cursor,
    check_place,
    cursor_at,
    find_numbered,
    newest_cursor,
    still_ahead,
)
from penstockd.store.database import Connection, Database
from penstockd.store.log import STRETCH_BYTES, Change, Stretch, read_stretch

#: A reading takes one more place of its consumer's share for every this many changes.
PLACE_CHANGES = 1000
#: The cost of judging a change besides its images, in bytes of images.
_OVERHEAD = 250

Lenses = Mapping[str, Lens]
#: The events that follow from a transaction, by its last number, for a dataset.
_Following = tuple[int, str, Dependents, FollowedChange]


async def read_events(
    database: Database, catalog: Catalog, lenses: Lenses, cursor: Cursor, upto: int | Cursor
) -> EventBatch:
    """The events after a cursor, up to ``upto`` or the end of the log.

    There are fewer if they are large, but at least one, if there is any. The events that follow
    from transactions end, with everything before them, at the event that reaches STRETCH_BYTES.

    ``upto`` is the last number of the changes, or a cursor at which the events end. Raises
    CursorInvalid (of another database, or of a state of it that was undone), CursorExpired and
    DatabaseUnavailable.
    """
    end = upto if isinstance(upto, Cursor) else Cursor(cursor.epoch, upto)
    # The rest of a transaction comes first.
    last = end.end if cursor.told is None else min(end.end, cursor.number + 1)
    async with AsyncExitStack() as stack:
        weight = 1 + max(0, last - cursor.number) // PLACE_CHANGES
        connection = await stack.enter_async_context(database.connection(weight=weight))
        if any(lens.follows for lens in lenses.values()):
            # Past states of records are read by several statements, which must see one state.
            single = connection.transaction(isolation="repeatable_read", readonly=True)
            await stack.enter_async_context(single)
        return await read_events_by(connection, catalog, lenses, cursor, end)


async def read_events_by(
    connection: Connection, catalog: Catalog, lenses: Lenses, cursor: Cursor, end: Cursor
) -> EventBatch:
    """As ``read_events``, on a connection that sees a single state if a lens follows references."""
    last = end.end if cursor.told is None else min(end.end, cursor.number + 1)
    names = _needed_datasets(lenses)
    stretch = await read_stretch(connection, cursor.number, last, names, place=cursor.end)
    check_place(cursor, stretch.log, stretch.place_mark)
    places = await find_numbered(connection, cursor)
    reading = _Reading(lenses, stretch, cursor, end, frozenset(places.values()))
    events = await reading.events(connection, catalog)
    number, told = reading.reached
    ahead = still_ahead(cursor, places, number)
    following = replace(cursor, number=number, ahead=ahead, told=told)
    following = replace(following, mark=await _mark_place(connection, following, cursor, stretch))
    log = stretch.log
    return EventBatch(events, following, reading.whole, number < log.head, newest_cursor(log))


async def _mark_place(
    connection: Connection, following: Cursor, cursor: Cursor, stretch: Stretch
) -> bytes:
    """The mark of the place that a reading from ``cursor`` has reached."""
    if following.end == cursor.end:
        assert stretch.place_mark is not None, "the place has been checked"
        return stretch.place_mark
    if following.end == stretch.number and stretch.mark is not None:
        return stretch.mark
    return (await cursor_at(connection, following.end)).mark


def _needed_datasets(lenses: Lenses) -> Sequence[str]:
    """The datasets whose changes must be read."""
    followed = {f.dataset for lens in lenses.values() for f in lens.follows}
    return sorted({*lenses, *followed})


@dataclass(slots=True)
class _Seen:
    """A change of a record, and the questions whether its lens shows it before and after."""

    change: Change
    lens: Lens
    before: PastQuestion | None
    after: PastQuestion | None


class _Reading:
    """One stretch of the log, after ``start`` and at most up to ``end``, seen through lenses."""

    def __init__(
        self, lenses: Lenses, stretch: Stretch, start: Cursor, end: Cursor, passed: frozenset[int]
    ) -> None:
        self._lenses, self._stretch, self._start, self._end = lenses, stretch, start, end
        #: The place that the stretch reaches: the number, and the position that its cursor shows.
        self.reached: tuple[int, tuple[str, str] | None] = (stretch.number, None)
        if stretch.number == start.number:
            self.reached = (start.number, start.told)
        elif end.told is not None and stretch.number == end.end:
            self.reached = (end.number, end.told)
        #: Whether that is the end of a transaction.
        self.whole = stretch.whole and self.reached[1] is None
        # Views that show all records unchanged.
        self._whole = {lens.view_id for lens in lenses.values() if lens.sees_all and lens.clear}
        # Transactions that the cursor's snapshot saw before they had a number are not sent again.
        # With references they are, since the records that they moved may have changed meanwhile; it
        # is harmless to report twice that a record has come or gone.
        self._passed = passed

    async def events(self, connection: Connection, catalog: Catalog) -> tuple[Event, ...]:
        """The events of the stretch, in order, up to the place that it reaches."""
        following = [lens for lens in self._lenses.values() if lens.follows]
        if not following:
            # The only event of such a change is the change itself, which was sent.
            return tuple(await self._plain()) if self._start.told is None else ()
        past = Past(connection, catalog, following)
        dependents = [Dependents(connection, catalog, past, lens) for lens in following]
        causes = await self._causes(dependents)
        own: list[Event] = []
        if self._start.told is None:
            own = [*await self._plain(), *await self._judged(past)]
            own.sort(key=lambda e: e.number)
        return tuple(await self._together(deque(own), causes))

    async def _causes(self, dependents: Iterable[Dependents]) -> Sequence[_Following]:
        """The events that follow from transactions, in order: by transaction, then by dataset."""
        found = []
        for each in dependents:
            for cause in await each.causes(self._start.number, self._stretch):
                found.append((cause.last, each.dataset.name, each, cause))
        return sorted(found, key=lambda f: f[:2])

    async def _together(self, own: deque[Event], causes: Sequence[_Following]) -> list[Event]:
        """The changes themselves, and after those of each transaction the events that follow from
        it.

        With such events, the stretch ends once it has reached STRETCH_BYTES.
        """
        events: list[Event] = []
        size = done = 0
        told: tuple[str, str] | None = None  # the last event that follows from ``done``
        for transaction, dataset, dependents, cause in causes:
            if transaction != done:
                if done and size >= STRETCH_BYTES:
                    self.reached, self.whole = (done, None), True
                    return events
                done, told = transaction, None
            while own and own[0].number <= transaction:
                size += own[0].size
                events.append(own.popleft())
            span = self._span(transaction, dataset)
            if span is None:
                continue
            async with aclosing(dependents.events(cause, *span)) as moved:
                async for event in moved:
                    if told is not None and size >= STRETCH_BYTES:
                        self.reached, self.whole = (transaction - 1, told), False
                        return events
                    events.append(event)
                    size, told = size + event.size, (dataset, event.key)
        return [*events, *own]

    def _span(self, transaction: int, dataset: str) -> tuple[str, str | None] | None:
        """The keys for which to report the events that follow from a transaction.

        They are after the first key, and up to the second, if there is one; None for no keys.
        """
        after, upto = "", None
        start, end = self._start.told, self._end.told
        if start is not None and transaction == self._start.end:
            if dataset < start[0]:
                return None
            after = start[1] if dataset == start[0] else ""
        if end is not None and transaction == self._end.end:
            if dataset > end[0]:
                return None
            upto = end[1] if dataset == end[0] else None
        return after, upto

    async def _plain(self) -> list[Event]:
        """Changes of records whose lenses need only the record itself."""
        events: list[Event] = []
        size = 0
        for change in self._stretch.changes:
            lens = self._lenses.get(change.dataset)
            if lens is None or lens.follows or change.transaction in self._passed:
                continue
            images = change.size
            size += _OVERHEAD + images
            if images <= LITTLE:
                event = self._make_event(change, lens)
            else:
                event = await run_offloaded(self._make_event, change, lens)
            if event is not None:
                events.append(event)
            if size > LITTLE:
                await let_others_run()
                size = 0
        return events

    def _make_event(self, change: Change, lens: Lens) -> Event | None:
        """What a lens that needs only the record itself shows of a change."""
        before, after = change.before, change.after
        if lens.view_id not in self._whole:
            before = None if before is None else lens.see(before, _find_nothing)
            after = None if after is None else lens.see(after, _find_nothing)
        return _make_event(change, lens, before, after)

    async def _judged(self, past: Past) -> Sequence[Event]:
        """Changes of records whose lenses need other records, too."""
        seen = []
        for change in self._stretch.changes:
            lens = self._lenses.get(change.dataset)
            if lens is not None and lens.follows:
                before = after = None
                if change.before is not None:
                    before = PastQuestion(lens, change.before, change.first - 1)
                if change.after is not None:
                    after = PastQuestion(lens, change.after, change.transaction)
                seen.append(_Seen(change, lens, before, after))
        await past.answer([q for s in seen for q in (s.before, s.after) if q is not None])
        events = []
        for each in seen:
            event = await offload_large(each.change.size, _judged_event, each)
            if event is not None:
                events.append(event)
            await let_others_run()
        return events


def _find_nothing(dataset: str, key: str) -> bytes | None:
    """Never called: for lenses that follow no reference."""
    raise AssertionError(f"no rule leads to {dataset}")


def _judged_event(seen: _Seen) -> Event | None:
    """What the lens shows of a change that has been judged."""
    return _make_event(seen.change, seen.lens, _shown_image(seen.before), _shown_image(seen.after))


def _shown_image(question: PastQuestion | None) -> bytes | None:
    """What the lens shows of an image that has been judged."""
    if question is None or not question.answer:
        return None
    return question.lens.project(question.image)


def _make_event(
    change: Change, lens: Lens, before: bytes | None, after: bytes | None
) -> Event | None:
    """The event of a change as a lens shows it, with images; None if it shows nothing."""
    changed: Sequence[str] = ()
    if before is not None and after is not None:
        operation = FeedOperation.UPDATED
        changed = lens.changed(before, after)
        if not changed:
            return None
    elif after is not None:
        created = change.operation == writer.Operation.CREATED
        operation = FeedOperation.CREATED if created else FeedOperation.ENTERED_VIEW
    elif before is not None:
        deleted = change.operation == writer.Operation.DELETED
        operation = FeedOperation.DELETED if deleted else FeedOperation.LEFT_VIEW
    else:
        return None
    return Event(
        change.number,
        change.transaction,
        change.dataset,
        change.key,
        operation,
        before,
        after,
        tuple(changed),
        change.commit_time,
    )
