"""Records that come into a View, or go out of it, because another record has changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from penstockd.catalog import Catalog, Dataset
from penstockd.catalog.record import Codec
from penstockd.feed.event import Event, Operation
from penstockd.feed.past import Past, Question
from penstockd.policy.lens import Follow, Lens
from penstockd.store.database import Connection
from penstockd.store.history import referring, states
from penstockd.store.log import Change, Stretch, read_stretch, transaction_at

#: Records that are judged at a time.
CHUNK = 1000


@dataclass(frozen=True, slots=True)
class _Cause:
    """What a transaction, of which ``last`` is a change, did to what a lens follows."""

    way: _Way
    last: Change
    keys: tuple[str, ...]


class _Way:
    """The way by which records of a lens lead to those of another dataset."""

    def __init__(self, catalog: Catalog, lens: Lens, follow: Follow) -> None:
        self.dataset = follow.dataset
        #: Dataset and reference field of each step, from the lens's own on.
        self.steps: list[tuple[Dataset, str]] = []
        dataset = lens.dataset
        for alias in follow.path:
            field = dataset.references[alias]
            assert field.reference is not None, "references are found by their aliases"
            self.steps.append((dataset, field.path))
            dataset = catalog[field.reference.dataset]
        self._parse = dataset.message_class.FromString
        self._row = Codec(dataset, follow.reads).row

    def matters(self, change: Change) -> bool:
        """Whether the change can have moved records that lead to it."""
        if change.dataset != self.dataset:
            return False
        if change.before is None or change.after is None:
            return True
        return self._row(self._parse(change.before)) != self._row(self._parse(change.after))


class Dependents:
    """The events of one lens that follow from changes of other records.

    They stand at the end of the transaction, whose last number they have: wherever a transaction
    is cut by readers, all are told the same.
    """

    def __init__(self, connection: Connection, catalog: Catalog, past: Past, lens: Lens) -> None:
        self._connection = connection
        self._past, self._lens = past, lens
        self._ways = [_Way(catalog, lens, follow) for follow in lens.follows]

    async def events(self, after: int, stretch: Stretch) -> list[Event]:
        """Those of the transactions that end in the stretch, which begins after a number; in no
        particular order, at most one a record and transaction."""
        changes = [*await self._earlier(after, stretch), *stretch.changes]
        found: dict[tuple[int, str], Event] = {}
        for cause in self._causes([c for c in changes if c.transaction <= stretch.number]):
            keys = await self._candidates(cause)
            for at in range(0, len(keys), CHUNK):
                for event in await self._moved(cause, keys[at : at + CHUNK]):
                    found.setdefault((event.transaction, event.key), event)
        return list(found.values())

    async def _earlier(self, after: int, stretch: Stretch) -> Sequence[Change]:
        """What matters of a transaction that has begun before the stretch and ends in it, without
        the images."""
        first, last = await transaction_at(self._connection, after)
        if first > after or last > stretch.number:
            return ()
        names = sorted({way.dataset for way in self._ways})
        found: list[Change] = []
        at = first - 1
        while at < after:
            part = await read_stretch(self._connection, at, min(at + CHUNK, after), names)
            for change in part.changes:
                if any(way.matters(change) for way in self._ways):
                    found.append(replace(change, before=None, after=None))
            at = part.number
        return found

    def _causes(self, changes: Sequence[Change]) -> Iterator[_Cause]:
        for _, together in groupby(changes, key=lambda c: c.transaction):
            transaction = list(together)
            for way in self._ways:
                mattering = [c for c in transaction if way.matters(c)]
                if mattering:
                    keys = tuple(dict.fromkeys(c.key for c in mattering))
                    yield _Cause(way, mattering[-1], keys)

    async def _candidates(self, cause: _Cause) -> Sequence[str]:
        """Keys of all records that led to the changed ones before the change, or do after it."""
        keys: Sequence[str] = cause.keys
        for dataset, field in reversed(cause.way.steps):
            if not keys:
                break
            keys = await referring(self._connection, dataset, field, keys)
        return keys

    async def _moved(self, cause: _Cause, keys: Iterable[str]) -> list[Event]:
        change, lens = cause.last, self._lens
        before_at, after_at = change.first - 1, change.transaction
        wanted = list(keys)
        places = [(key, at) for key in wanted for at in (before_at, after_at)]
        images = await states(self._connection, lens.dataset, places)
        pairs = []
        for key in wanted:
            image = images[key, before_at]
            # What the transaction changed itself is told as its own change.
            if image is not None and image == images[key, after_at]:
                pairs.append(
                    (key, Question(lens, image, before_at), Question(lens, image, after_at))
                )
        await self._past.answer([q for _, was, there in pairs for q in (was, there)])
        return [
            self._event(change, key, was.image, entered=there.answer)
            for key, was, there in pairs
            if was.answer is not there.answer
        ]

    def _event(self, change: Change, key: str, image: bytes, *, entered: bool) -> Event:
        shown = self._lens.project(image)
        return Event(
            change.transaction,
            change.transaction,
            self._lens.dataset.name,
            key,
            Operation.ENTERED_VIEW if entered else Operation.LEFT_VIEW,
            None if entered else shown,
            shown if entered else None,
            (),
            change.commit_time,
        )
