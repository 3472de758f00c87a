"""Row rules that follow references, judged as of places in the log.

A ``Lens`` asks for the records that a rule leads to while it judges, and cannot wait. So it is
given what is known, what it asked for in vain is fetched, and it judges again: one round for each
step of the longest chain of references.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from penstockd.catalog import Catalog
from penstockd.policy.lens import Lens
from penstockd.store.database import Connection
from penstockd.store.history import states

#: A record at a place: dataset, key, number.
_Place = tuple[str, str, int]


@dataclass(slots=True)
class Question:
    """Does the lens show this image, with references as they stood at ``number``?"""

    lens: Lens
    image: bytes
    number: int
    answer: bool = False


class Past:
    """What records were at places in the log; one connection, one state of the data."""

    def __init__(self, connection: Connection, catalog: Catalog) -> None:
        self._connection, self._catalog = connection, catalog
        self._known: dict[_Place, bytes | None] = {}

    async def answer(self, questions: Sequence[Question]) -> None:
        """Judge all of them."""
        left = list(questions)
        while left:
            missing: set[_Place] = set()
            left = [q for q in left if not self._judged(q, missing)]
            await self._fetch(missing)

    def _judged(self, question: Question, missing: set[_Place]) -> bool:
        """Judge one, unless something that it leads to is not known yet."""
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

    async def _fetch(self, missing: set[_Place]) -> None:
        by_dataset: dict[str, set[tuple[str, int]]] = {}
        for dataset, key, number in missing:
            by_dataset.setdefault(dataset, set()).add((key, number))
        for name, places in by_dataset.items():
            found = await states(self._connection, self._catalog[name], places)
            for (key, number), image in found.items():
                self._known[name, key, number] = image
