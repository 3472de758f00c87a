"""Records that enter or leave a View because another record has changed."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime

from penstockd.budget import let_others_run, offload_large
from penstockd.catalog import Catalog, Dataset
from penstockd.catalog.record import Codec
from penstockd.feed.event import Event, FeedOperation
from penstockd.feed.past import Past, PastQuestion
from penstockd.policy.lens import Follow, Lens
from penstockd.store.database import Connection
from penstockd.store.history import PastState, Place, Step, find_referring, read_states
from penstockd.store.log import Change, Stretch, read_stretch, transaction_at

#: Changes that are read at a time; fewer if they are large.
CHUNK = 1000
#: Keys that are looked up at a time; each has at most 512 bytes.
KEYS = 4000
#: The most bytes of changed records' keys that are remembered for a transaction. If it has more,
#: all records that refer to any changed record are judged: more work, but the same result.
CAUSE_BYTES = 1024 * 1024


class _Way:
    """One chain of references from records of a lens to those of another dataset."""

    def __init__(self, catalog: Catalog, lens: Lens, follow: Follow) -> None:
        self.dataset = follow.dataset
        #: The steps, from the lens's own dataset on.
        self.steps: list[Step] = []
        dataset = lens.dataset
        for alias in follow.path:
            field = dataset.references[alias]
            assert field.reference is not None, "references are found by their aliases"
            self.steps.append((dataset, field.path))
            dataset = catalog[field.reference.dataset]
        self._parse = dataset.message_class.FromString
        self._row = Codec(dataset, follow.reads).row

    def matters(self, change: Change) -> bool:
        """Whether the change may have moved records that lead to the changed one."""
        if change.dataset != self.dataset:
            return False
        if change.before is None or change.after is None:
            return True
        return self._row(self._parse(change.before)) != self._row(self._parse(change.after))


@dataclass(slots=True)
class FollowedChange:
    """The effects of a transaction, from its ``first`` change to its ``last``, on records that a
    lens follows.

    ``keys`` are those of the records that it moved, by way; None if there are too many.
    """

    first: int
    last: int
    time: datetime
    keys: dict[_Way, dict[str, None] | None] = field(default_factory=dict)
    _size: int = 0

    def add(self, way: _Way, key: str) -> None:
        """Note a record that was moved."""
        known = self.keys.setdefault(way, {})
        if known is None or key in known:
            return
        known[key] = None
        self._size += 100 + len(key)
        if self._size > CAUSE_BYTES:
            self.keys = dict.fromkeys(self.keys)
            self._size = 0


class Dependents:
    """The events of one lens that follow from changes of other records.

    They come at the end of the transaction, with its last number. So all readers get the same
    events, wherever they cut a transaction.
    """

    def __init__(self, connection: Connection, catalog: Catalog, past: Past, lens: Lens) -> None:
        self.dataset: Dataset = lens.dataset
        self._connection = connection
        self._past, self._lens = past, lens
        self._ways = [_Way(catalog, lens, follow) for follow in lens.follows]

    async def causes(self, after: int, stretch: Stretch) -> Sequence[FollowedChange]:
        """The effects of the transactions that end in the stretch, which begins after a number."""
        found: dict[int, FollowedChange] = {}
        async with aclosing(self._earlier(after, stretch)) as parts:
            async for part in parts:
                self._add(found, part)
        self._add(found, [c for c in stretch.changes if c.transaction <= stretch.number])
        return list(found.values())

    async def events(
        self, cause: FollowedChange, after: str = "", upto: str | None = None
    ) -> AsyncGenerator[Event, None]:
        """The events that follow from a transaction, in order of their keys.

        The keys are after ``after`` and up to ``upto``; each has at most one event.
        """
        routes = [(way.steps, keys) for way, keys in cause.keys.items()]
        full = True
        while full:
            keys = await find_referring(
                self._connection, routes, cause.last, after=after, upto=upto, limit=KEYS
            )
            full = len(keys) == KEYS
            places = [(key, cause.first - 1) for key in keys]
            async with aclosing(read_states(self._connection, self.dataset, places)) as pieces:
                async for piece in pieces:
                    for event in await self._moved(cause, piece):
                        yield event
            after = keys[-1] if keys else after

    async def _earlier(
        self, after: int, stretch: Stretch
    ) -> AsyncGenerator[Sequence[Change], None]:
        """The relevant changes of a transaction that began before the stretch and ends in it."""
        first, last = await transaction_at(self._connection, after)
        if first > after or last > stretch.number:
            return
        names = sorted({way.dataset for way in self._ways})
        at = first - 1
        while at < after:
            part = await read_stretch(self._connection, at, min(at + CHUNK, after), names)
            yield part.changes
            at = part.number

    def _add(self, causes: dict[int, FollowedChange], changes: Sequence[Change]) -> None:
        for change in changes:
            for way in self._ways:
                if way.matters(change):
                    last = change.transaction
                    if last not in causes:
                        causes[last] = FollowedChange(change.first, last, change.commit_time)
                    causes[last].add(way, change.key)

    async def _moved(
        self, cause: FollowedChange, piece: Mapping[Place, PastState]
    ) -> Sequence[Event]:
        pairs = []
        for (key, before), state in piece.items():
            # The transaction's own changes are reported separately.
            own = state.until is not None and state.until <= cause.last
            if state.image is not None and not own:
                was = PastQuestion(self._lens, state.image, before)
                pairs.append((key, was, PastQuestion(self._lens, state.image, cause.last)))
        await self._past.answer([q for _, was, there in pairs for q in (was, there)])
        events = []
        for key, was, there in pairs:
            if was.answer is not there.answer:
                image, entered = was.image, there.answer
                size = len(image)
                event = await offload_large(size, self._event, cause, key, image, entered=entered)
                events.append(event)
                await let_others_run()
        return events

    def _event(self, cause: FollowedChange, key: str, image: bytes, *, entered: bool) -> Event:
        shown = self._lens.project(image)
        return Event(
            cause.last,
            cause.last,
            self.dataset.name,
            key,
            FeedOperation.ENTERED_VIEW if entered else FeedOperation.LEFT_VIEW,
            None if entered else shown,
            shown if entered else None,
            (),
            cause.time,
        )
