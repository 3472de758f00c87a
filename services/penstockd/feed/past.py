"""Judges row rules that follow references, at places in the log.

A ``Lens`` asks for the records that a rule leads to while it judges, and cannot wait. So it gets
the known ones; the missing ones are fetched, and it judges again: one round for each step of the
longest chain of references.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from penstockd.budget import let_others_run, offload_large
from penstockd.catalog import Catalog, Field
from penstockd.policy.lens import Lens
from penstockd.store.database import Connection
from penstockd.store.history import read_states
from penstockd.store.log import STRETCH_BYTES

#: Questions that are judged at a time; fewer if their rules read large records.
TOGETHER = 1000
#: Bytes that a known record counts for in addition to its image.
_OVERHEAD = 200

#: A record at a place: dataset, key, number.
_Place = tuple[str, str, int]


@dataclass(slots=True)
class PastQuestion:
    """Whether the lens shows this image, with references as they were at ``number``."""

    lens: Lens
    image: bytes
    number: int
    answer: bool = False


class Past:
    """The records at places in the log, read on one connection in one state of the data.

    It keeps what the rules of ``lenses`` read of each record, together STRETCH_BYTES or a little
    more: the records of a single question are not split.
    """

    def __init__(self, connection: Connection, catalog: Catalog, lenses: Iterable[Lens]) -> None:
        self._connection, self._catalog = connection, catalog
        self._known: dict[_Place, bytes | None] = {}
        self._size = 0
        reads: dict[str, dict[Field, None]] = {}
        for follow in (f for lens in lenses for f in lens.follows):
            reads.setdefault(follow.dataset, {}).update(dict.fromkeys(follow.reads))
        self._reads = {name: tuple(fields) for name, fields in reads.items()}

    async def answer(self, questions: Sequence[PastQuestion]) -> None:
        """Judge all questions; their lenses must be among ``lenses``."""
        at, together = 0, TOGETHER
        while at < len(questions):
            if self._size >= STRETCH_BYTES // 2:
                self._forget()
            part = questions[at : at + together]
            if await self._answered(part):
                at, together = at + len(part), min(2 * together, TOGETHER)
            else:
                together = max(1, len(part) // 2)

    async def _answered(self, questions: Sequence[PastQuestion]) -> bool:
        """Judge all questions; False if that would need too much memory."""
        left = list(questions)
        while left:
            missing: set[_Place] = set()
            open_ones = []
            for question in left:
                size = len(question.image)
                if not await offload_large(size, self._judged, question, missing):
                    open_ones.append(question)
                await let_others_run()
            left = open_ones
            if not await self._fetch(missing, bounded=len(questions) > 1):
                return False
        return True

    def _judged(self, question: PastQuestion, missing: set[_Place]) -> bool:
        """Judge one question; False if a record that it leads to is not known yet."""
        asked: set[_Place] = set()

        def find(dataset: str, key: str) -> bytes | None:
            place = (dataset, key, question.number)
            if place not in self._known:
                asked.add(place)
                return None
            return self._known[place]

        answer = question.lens.shows(question.image, find)
        if asked:
            missing |= asked
            return False
        question.answer = answer
        return True

    async def _fetch(self, missing: set[_Place], *, bounded: bool) -> bool:
        """Fetch what is missing; False if that is too much, and then everything is dropped."""
        by_dataset: dict[str, set[tuple[str, int]]] = {}
        for name, key, number in missing:
            by_dataset.setdefault(name, set()).add((key, number))
        for name, places in by_dataset.items():
            dataset, fields = self._catalog[name], self._reads[name]
            reading = read_states(self._connection, dataset, sorted(places), fields)
            async with aclosing(reading) as pieces:
                async for piece in pieces:
                    for (key, number), state in piece.items():
                        self._known[name, key, number] = state.image
                        self._size += _OVERHEAD + len(state.image or b"")
                    if bounded and self._size >= STRETCH_BYTES:
                        self._forget()
                        return False
        return True

    def _forget(self) -> None:
        self._known.clear()
        self._size = 0
