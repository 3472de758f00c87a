"""Reads the log through Views: the changes that each shows, and what else follows from them.

A View is judged at the ends of transactions: what it showed before one, and what it shows after.
A row rule may follow references; then a change of one record can bring others into a View or out
of it, and those are told at the end of the transaction that moved them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

from penstockd.catalog import Catalog
from penstockd.errors import CursorExpired, CursorInvalid
from penstockd.feed.dependents import Dependents
from penstockd.feed.event import Batch, Event, Operation
from penstockd.feed.past import Past, Question
from penstockd.policy.lens import Lens
from penstockd.store import writer
from penstockd.store.cursor import FOREIGN, Cursor, numbered
from penstockd.store.database import Connection, Database
from penstockd.store.log import Change, Stretch, read_stretch

Lenses = Mapping[str, Lens]

#: A cursor that is so far ahead of the log was never given out.
_FUTURE = "the cursor is ahead of the change log"
_EXPIRED = "the changes after this cursor are kept no longer: repair what you have, or start anew"


async def read_events(
    database: Database, catalog: Catalog, lenses: Lenses, cursor: Cursor, upto: int
) -> Batch:
    """The events after a cursor, of changes with numbers to ``upto`` or as far as there are any, or
    fewer where they are large: there is always one change more if there is any.

    Raises CursorInvalid (of another database, or ahead of the log), CursorExpired and
    DatabaseUnavailable.
    """
    follows = any(lens.follows for lens in lenses.values())
    async with AsyncExitStack() as stack:
        connection = await stack.enter_async_context(database.connection())
        if follows:
            # What records were is asked in several statements, which must see one state.
            single = connection.transaction(isolation="repeatable_read", readonly=True)
            await stack.enter_async_context(single)
        names = _needed(lenses)
        stretch = await read_stretch(connection, cursor.number, upto, names)
        check_place(cursor, stretch.epoch, stretch.head, stretch.oldest)
        places = await numbered(connection, cursor)
        batch = _Reading(lenses, stretch, cursor.number, frozenset(places.values()))
        events = await batch.events(connection, catalog)
    ahead = tuple(t for t in cursor.ahead if t not in places or places[t] > stretch.number)
    following = replace(cursor, number=stretch.number, ahead=ahead)
    return Batch(events, following, stretch.whole, stretch.number < stretch.head, stretch.head)


def check_place(cursor: Cursor, epoch: str, head: int, oldest: int) -> None:
    """Raise CursorInvalid or CursorExpired if the log cannot be read from the cursor on."""
    if cursor.epoch != epoch:
        raise CursorInvalid(FOREIGN)
    if cursor.number > head:
        raise CursorInvalid(_FUTURE)
    if cursor.number < oldest:
        raise CursorExpired(_EXPIRED, metadata={"oldest": str(Cursor(epoch, oldest))})


def _needed(lenses: Lenses) -> Sequence[str]:
    """The datasets whose changes have to be looked at."""
    followed = {f.dataset for lens in lenses.values() for f in lens.follows}
    return sorted({*lenses, *followed})


@dataclass(slots=True)
class _Seen:
    """A change of a record, and whether its lens shows the record before and after."""

    change: Change
    lens: Lens
    before: Question | None
    after: Question | None


class _Reading:
    """One stretch of the log seen through some lenses."""

    def __init__(
        self, lenses: Lenses, stretch: Stretch, after: int, passed: frozenset[int]
    ) -> None:
        self._lenses, self._stretch, self._after = lenses, stretch, after
        # Those that show all records as they are.
        self._whole = {lens.view_id for lens in lenses.values() if lens.sees_all and lens.clear}
        # Transactions that the cursor's snapshot saw before they had a number: not told again.
        # Where references are followed they are, since what they moved may have changed meanwhile;
        # to be told twice that a record has come or gone is harmless.
        self._passed = passed

    async def events(self, connection: Connection, catalog: Catalog) -> tuple[Event, ...]:
        """The events of the stretch, in order."""
        following = [lens for lens in self._lenses.values() if lens.follows]
        events = list(self._plain())
        if following:
            past = Past(connection, catalog)
            events += await self._judged(past)
            moved: list[Event] = []
            for lens in following:
                dependents = Dependents(connection, catalog, past, lens)
                moved += await dependents.events(self._after, self._stretch)
            # They stand at the ends of transactions, behind what was changed there.
            events += sorted(moved, key=lambda e: (e.dataset, e.key))
            events.sort(key=lambda e: e.number)
        return tuple(events)

    def _plain(self) -> Iterator[Event]:
        """Changes of records whose lenses need nothing but the record."""
        for change in self._stretch.changes:
            lens = self._lenses.get(change.dataset)
            if lens is None or lens.follows or change.transaction in self._passed:
                continue
            before, after = change.before, change.after
            if lens.view_id not in self._whole:
                before = None if before is None else lens.see(before, _nowhere)
                after = None if after is None else lens.see(after, _nowhere)
            if (event := _told(change, lens, before, after)) is not None:
                yield event

    async def _judged(self, past: Past) -> Sequence[Event]:
        """Changes of records whose lenses look at others, too."""
        seen = []
        for change in self._stretch.changes:
            lens = self._lenses.get(change.dataset)
            if lens is not None and lens.follows:
                before = after = None
                if change.before is not None:
                    before = Question(lens, change.before, change.first - 1)
                if change.after is not None:
                    after = Question(lens, change.after, change.transaction)
                seen.append(_Seen(change, lens, before, after))
        await past.answer([q for s in seen for q in (s.before, s.after) if q is not None])
        told = (_told(s.change, s.lens, _shown(s.before), _shown(s.after)) for s in seen)
        return [event for event in told if event is not None]


def _nowhere(dataset: str, key: str) -> bytes | None:
    """For lenses that follow no reference."""
    raise AssertionError(f"no rule leads to {dataset}")


def _shown(question: Question | None) -> bytes | None:
    """What the lens shows of an image that has been judged."""
    if question is None or not question.answer:
        return None
    return question.lens.project(question.image)


def _told(change: Change, lens: Lens, before: bytes | None, after: bytes | None) -> Event | None:
    """What the holder of the lens is told of a change; None: nothing. Images as it sees them."""
    changed: Sequence[str] = ()
    if before is not None and after is not None:
        operation = Operation.UPDATED
        changed = lens.changed(before, after)
        if not changed:
            return None
    elif after is not None:
        created = change.operation == writer.Operation.CREATED
        operation = Operation.CREATED if created else Operation.ENTERED_VIEW
    elif before is not None:
        deleted = change.operation == writer.Operation.DELETED
        operation = Operation.DELETED if deleted else Operation.LEFT_VIEW
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
