"""Evaluates a row rule or a filter on serialised messages: the answer of SQL, in Python.

Only the fields that it names are decoded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf.message import Message

from penstockd.catalog import Catalog, Dataset, Field, Kind
from penstockd.catalog.canonical import from_message
from penstockd.catalog.record import make_getter
from penstockd.query import Expression, Names, make_matcher, named_fields

#: Looks up the image of a record by dataset and key; None if it does not exist.
Find = Callable[[str, str], bytes | None]
#: How a reader sees a field's canonical values; None if it sees them unchanged.
Show = Callable[[Field], Callable[[Any], Any] | None]

#: The number of answers that a question keeps if its fields have few values.
_MOST: Final = 4096


@dataclass(frozen=True, slots=True)
class Follow:
    """A reference that a row rule follows.

    ``path`` are the aliases from the record on, ending with this reference's own. ``field``, of the
    dataset to which the other aliases lead, holds the key of a record of ``dataset``. ``reads`` are
    the fields of ``dataset`` on which the rule's answer depends.
    """

    path: tuple[str, ...]
    dataset: str
    field: Field
    reads: tuple[Field, ...]


class Question:
    """An expression over the fields of a dataset and, through references, of others."""

    def __init__(
        self, expression: Expression, names: Names, dataset: Dataset, catalog: Catalog, show: Show
    ) -> None:
        """Raise FilterError as ``query.compile_filter`` does."""
        self._matches = make_matcher(expression, names)
        by_path: dict[tuple[str, ...], list[Field]] = {}
        for prefix, field in named_fields(expression, names):
            by_path.setdefault(tuple(prefix.split(".")[:-1]), []).append(field)
        self._place = QuestionPlace(dataset, (), by_path, catalog)
        places = list(self._place.all())
        self._names = [".".join((*p.path, f.path)) for p in places for f in p.fields]
        fields = [f for p in places for f in p.fields]
        self._converts = [(i, c) for i, f in enumerate(fields) for c in _conversion_steps(f, show)]
        self.fields: tuple[Field, ...] = self._place.fields
        self.follows = tuple(p.follow for p in places if p.follow is not None)
        few = all(f.kind in (Kind.ENUM, Kind.BOOL) for f in fields)
        self._answers: dict[tuple[Any, ...], bool] | None = {} if few else None

    def ask(self, record: Message, find: Find) -> bool:
        """Whether the expression holds for a record."""
        values: list[Any] = []
        self._place.read(record, find, values)
        if self._answers is None:
            return self._judge(values)
        key = tuple(values)
        answer = self._answers.get(key)
        if answer is None:
            answer = self._judge(values)
            if len(self._answers) < _MOST:
                self._answers[key] = answer
        return answer

    def _judge(self, values: list[Any]) -> bool:
        for i, convert in self._converts:
            if values[i] is not None:
                values[i] = convert(values[i])
        return self._matches(dict(zip(self._names, values, strict=True)))


def _conversion_steps(field: Field, show: Show) -> Iterator[Callable[[Any], Any]]:
    """The conversions from a message's value to the canonical value, then to what is shown."""
    yield from (step for step in (from_message(field), show(field)) if step is not None)


class QuestionPlace:
    """A dataset that a question reads, its fields that are read, and the references from it."""

    def __init__(
        self,
        dataset: Dataset,
        path: tuple[str, ...],
        named: Mapping[tuple[str, ...], Sequence[Field]],
        catalog: Catalog,
        via: Field | None = None,
    ) -> None:
        self.path = path
        self.fields = tuple(named.get(path, ()))
        self._parse = dataset.message_class.FromString
        self._getters = [make_getter(f) for f in self.fields]
        self._further: list[tuple[Callable[[Any], Any], str, QuestionPlace]] = []
        reads = list(self.fields)
        for alias in dict.fromkeys(p[len(path)] for p in named if _leads_beyond(p, path)):
            onward = dataset.references[alias]
            assert onward.reference is not None, "references are found by their aliases"
            target = onward.reference.dataset
            place = QuestionPlace(catalog[target], (*path, alias), named, catalog, onward)
            self._further.append((make_getter(onward), target, place))
            reads.append(onward)
        self.follow = None if via is None else Follow(path, dataset.name, via, tuple(reads))

    def all(self) -> Iterator[QuestionPlace]:
        """This place and those that it leads to, in the order in which values are read."""
        yield self
        for _, _, place in self._further:
            yield from place.all()

    def read(self, record: Message | None, find: Find, values: list[Any]) -> None:
        """Append the record's value of each field; None for a reference without a record."""
        if record is None:
            values += [None] * len(self._getters)
        else:
            values += [get(record) for get in self._getters]
        for key_of, dataset, place in self._further:
            value = None if record is None else key_of(record)
            # No record has an empty key.
            image = None if value in (None, "") else find(dataset, str(value))
            place.read(None if image is None else place._parse(image), find, values)


def _leads_beyond(path: tuple[str, ...], start: tuple[str, ...]) -> bool:
    return len(path) > len(start) and path[: len(start)] == start
