"""How a writer's rows become full rows of a dataset: new, changed, or unchanged."""

from __future__ import annotations

import enum
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from operator import itemgetter
from typing import Any

from penstockd.catalog import Dataset, Field, Kind
from penstockd.catalog.keys import key_reader
from penstockd.catalog.oneofs import oneofs_of
from penstockd.errors import (
    EtagMismatch,
    RecordExists,
    RecordNotFound,
    Refused,
    ValueInvalid,
    Violation,
)
from penstockd.store.rows import Defaults, is_unchanged
from penstockd.store.staging import Column, Staged, Stager

_ODD = (Kind.FLOAT, Kind.DOUBLE, Kind.LIST, Kind.MAP, Kind.STRUCT)
#: Faults of a row that its writer could no longer see, or whose key repeats.
LEAVES = "would leave the rows that you may see"
TWICE = "occurs twice"
#: The most bytes of a record as a message: any reply must have room for one.
MAX_RECORD_BYTES = 7 << 19
_TOO_LARGE = "is larger than 3.5 MiB, the most of a record"


class Mode(enum.Enum):
    """The records that a write expects to find."""

    CREATE = enum.auto()
    UPDATE = enum.auto()
    UPSERT = enum.auto()


class DuplicateKey(Exception):
    """Two rows of one batch or import have the same key; ``row`` is the later one's index."""

    def __init__(self, row: int, key: str) -> None:
        super().__init__(f"the key '{key}' occurs twice")
        self.row = row


@dataclass(slots=True)
class Counts:
    """How many records a write created, updated, and found unchanged."""

    created: int = 0
    updated: int = 0
    unchanged: int = 0

    @property
    def total(self) -> int:
        """All rows of the write."""
        return self.created + self.updated + self.unchanged

    def add(self, more: Counts) -> None:
        """Add the counts of another write."""
        self.created += more.created
        self.updated += more.updated
        self.unchanged += more.unchanged


@dataclass(slots=True)
class Refusals:
    """Rows left out of a write, in no order: index, field or "", and the fault."""

    found: list[tuple[int, str, str]] = field(default_factory=list)
    indexes: set[int] = field(default_factory=set)

    def add(self, index: int, path: str, description: str) -> None:
        """Leave a row out; may be called several times for one row, once per fault."""
        self.found.append((index, path, description))
        self.indexes.add(index)

    def by_index(self) -> dict[int, list[tuple[str, str]]]:
        """The faults of each row: field or "", and the description."""
        told: dict[int, list[tuple[str, str]]] = {}
        for index, path, description in self.found:
            told.setdefault(index, []).append((path, description))
        return told

    def take(self, more: Refusals, numbers: Sequence[int] | None = None) -> None:
        """Add refusals found elsewhere; ``numbers``, if given, maps their indexes to the ones
        here."""
        if numbers is None:
            self.found += more.found
            self.indexes |= more.indexes
        else:
            self.found += [(numbers[index], path, text) for index, path, text in more.found]
            self.indexes.update(numbers[index] for index in more.indexes)


class UpsertPlan:
    """How rows of some fields become full rows of a dataset."""

    def __init__(
        self,
        time: datetime,
        new_etag: int,
        dataset: Dataset,
        fields: tuple[Field, ...],
        mode: Mode,
        etags: Collection[str],
        lacking: Sequence[Violation],
    ) -> None:
        self.dataset, self.mode, self.etags, self.lacking = dataset, mode, etags, lacking
        self.new_etag, self.time = new_etag, time
        position = {f.path: i for i, f in enumerate(dataset.fields)}
        self.targets = [position[f.path] for f in fields]
        self.fields = fields
        self.key_of = key_reader(dataset, fields)
        self.key_path = dataset.key_fields[0].path
        self.defaults = Defaults.of(dataset)
        self._oneofs = [oneof.places(dataset.fields) for oneof in oneofs_of(dataset)]
        # Most values are the same if they are equal; odd kinds need ``rows.is_unchanged``.
        self._odd = [(i, f) for i, f in enumerate(dataset.fields) if f.kind in _ODD]
        odd = {i for i, _ in self._odd}
        self._plain = itemgetter(*(i for i in range(len(dataset.fields)) if i not in odd))
        self._update_at = position["update_time"]
        self._etag_at = position["etag"]

    def check_keys(self, rows: Sequence[Sequence[Any]]) -> None:
        """Raise DuplicateKey for the first row whose key an earlier row has."""
        keys = [self.key_of(row) for row in rows]
        if len(set(keys)) == len(rows):
            return
        seen: set[str] = set()
        for i, key in enumerate(keys):
            if key in seen:
                raise DuplicateKey(i, key)
            seen.add(key)

    def first_of_each(
        self, rows: Sequence[Sequence[Any]], refused: Refusals
    ) -> list[tuple[int, Sequence[Any]]]:
        """The rows whose key no earlier row has; the others are refused."""
        seen: set[str] = set()
        pending = []
        for i, row in enumerate(rows):
            key = self.key_of(row)
            if key in seen:
                refused.add(i, self.key_path, TWICE)
            else:
                seen.add(key)
                pending.append((i, row))
        return pending

    def stage(
        self,
        pending: Sequence[tuple[int, Sequence[Any]]],
        existing: Mapping[str, Any],
        counts: Counts,
        refused: Refusals | None = None,
    ) -> Staged:
        """The rows to merge, given the existing ones; counts rows without a change as unchanged."""
        stager, staged = Stager.of(self.dataset), Staged()
        new: dict[int, Sequence[Any]] = {}
        changed: dict[int, tuple[Sequence[Any], Sequence[Any]]] = {}
        for index, row in pending:
            current = existing.get(self.key_of(row))
            try:
                if current is None:
                    self.check_new(row)
                    new[index] = row
                elif (pair := self.change(index, row, current)) is not None:
                    changed[index] = pair
                else:
                    counts.unchanged += 1
            except (Refused, DuplicateKey) as exc:
                if refused is None:
                    raise
                self._note(refused, index, exc)
        if new:
            columns = stager.new(self.fields, [*new.values()], self.time, self.new_etag)
            staged.add(_leave_out(columns, _find_large(columns), [*new], refused))
        if changed:
            pairs = [*changed.values()]
            columns = stager.changed(pairs)
            # One that was stored before there was a limit may change if it does not grow.
            large = {at for at in _find_large(columns) if self._grows(*pairs[at])}
            staged.add(_leave_out(columns, large, [*changed], refused))
        return staged

    def _grows(self, old: Sequence[Any], new: Sequence[Any]) -> bool:
        """Whether a record grows, apart from what each change sets."""
        kept, stager = list(new), Stager.of(self.dataset)
        for at in (self._update_at, self._etag_at):
            kept[at] = old[at]
        return len(stager.image(kept)) > len(stager.image(old))

    def _note(self, refused: Refusals, index: int, exc: Refused | DuplicateKey) -> None:
        if isinstance(exc, DuplicateKey):
            refused.add(index, self.key_path, TWICE)
        elif exc.violations:
            for violation in exc.violations:
                refused.add(index, violation.field, violation.description)
        else:
            refused.add(index, self.key_path, "is not among the records that you may see")

    def check_new(self, row: Sequence[Any]) -> None:
        """Raise RecordNotFound or ValueInvalid if a row cannot create a record."""
        if self.mode is Mode.UPDATE:
            raise RecordNotFound(f"{self.dataset.singular} '{self.key_of(row)}' does not exist")
        if self.lacking:
            first = self.lacking[0]
            message = f"a new record: {first.field}: {first.description}"
            raise ValueInvalid(message, violations=self.lacking)

    def change(
        self, index: int, row: Sequence[Any], current: Any
    ) -> tuple[list[Any], list[Any]] | None:
        """The old and the new full row of an existing record; None if nothing changes."""
        key = self.key_of(row)
        if self.mode is Mode.CREATE:
            raise RecordExists(f"{self.dataset.singular} '{key}' exists already")
        if not current["~visible"]:
            raise RecordNotFound(f"{self.dataset.singular} '{key}' does not exist")
        check_etag(self.dataset, key, current["etag"], self.etags)
        if current["etag"] == self.new_etag:
            raise DuplicateKey(index, key)
        old = [current[i] for i in range(len(self.dataset.fields))]
        full = list(old)
        for target, value in zip(self.targets, row, strict=True):
            full[target] = self.defaults.value(target) if value is None else value
        if self._oneofs:
            self._clear_others(row, full)
        self.defaults.complete(full)
        if self._plain(old) == self._plain(full) and all(
            old[i] is full[i] or is_unchanged(f, old[i], full[i]) for i, f in self._odd
        ):
            return None
        full[self._update_at], full[self._etag_at] = self.time, self.new_etag
        return old, full

    def _clear_others(self, row: Sequence[Any], full: list[Any]) -> None:
        """Unset the other members of each oneof of which the row sets one."""
        given = {t for t, value in zip(self.targets, row, strict=True) if value is not None}
        for members in self._oneofs:
            if all(given.isdisjoint(m) for m in members):
                continue
            for member in members:
                if given.isdisjoint(member):
                    for i in member:
                        full[i] = None


def _find_large(columns: list[Column]) -> set[int]:
    """The places of staged rows whose records are larger than a record may become."""
    return {at for at, image in enumerate(columns[1]) if len(image) > MAX_RECORD_BYTES}


def _leave_out(
    columns: list[Column], large: set[int], indexes: Sequence[int], refused: Refusals | None
) -> list[Column]:
    """The staged rows without those that are too large; ValueInvalid for these without
    ``refused``."""
    if not large:
        return columns
    if refused is None:
        raise ValueInvalid(f"the record {_TOO_LARGE}", violations=[Violation("", _TOO_LARGE)])
    for at in large:
        refused.add(indexes[at], "", _TOO_LARGE)
    return [[v for at, v in enumerate(column) if at not in large] for column in columns]


def check_etag(dataset: Dataset, key: str, current: int, wanted: Collection[str]) -> None:
    """Raise EtagMismatch if etags are required and the record has none of them.

    The error does not reveal the current etag: ``writes.outgoing`` decides that, since it knows who
    may read it.
    """
    if wanted and str(current) not in wanted:
        raise EtagMismatch(
            f"{dataset.singular} '{key}' changed since it was read",
            violations=[Violation("etag", "has changed")],
        )
