"""Values that no two records may share: a write's values, compared with the stored ones.

The database's unique indexes decide. A look-up in advance determines which row of a batch is at
fault and in which field, which an index does not report without ending the transaction; and it lets
the records of one write pass on their values, which an index checks row by row.

The error that a value is taken reveals that some record has it. A writer that may not read that
record learns it for a few values in a call, and for none if it only validates: otherwise a call
could try a million.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from penstockd.catalog import Dataset, Field
from penstockd.catalog.keys import join_key
from penstockd.errors import ValueTaken, Violation
from penstockd.store.indexes import declared_indexes
from penstockd.store.rows import Defaults
from penstockd.store.session import Connection
from penstockd.store.sql import Statement
from penstockd.store.staging import Staged
from penstockd.store.tables import DATA_SCHEMA, empty_value, sql_type
from penstockd.store.upsert import Refusals

TAKEN = "another record has this value already"
#: The most values of one call that are reported as taken by records that the writer may not read.
MOST_UNSEEN = 5
_TOO_MANY = (
    f"more than {MOST_UNSEEN} values are taken by records that you may not read; nothing was "
    "written"
)
_IMAGES = 2  # columns of staged rows before those of the fields


@dataclass(frozen=True, slots=True)
class Unread:
    """What a writer may not read: these unique fields, and the records that ``rows`` selects from
    some ``keys``; none if it is None. ``ruled`` are the unique fields that decide which records it
    may write."""

    fields: frozenset[Field]
    rows: Statement | None
    ruled: frozenset[Field] = frozenset()


@dataclass(frozen=True, slots=True)
class UniqueField:
    """A unique field: its place in the dataset's fields, the value that is not compared, and SQL
    that finds the holders of some values (their places from 1, and keys), or unsets the values of
    some records."""

    field: Field
    place: int
    unset: Any
    holders: str
    release: str

    def compares(self, value: Any) -> bool:
        """Whether two records must not share this value."""
        return value is not None and value != self.unset


@dataclass(frozen=True, slots=True)
class Hit:
    """A value of a staged row that another record has in the database; ``unseen`` if the writer may
    not read that record."""

    row: int
    unique: UniqueField
    holder: str
    unseen: bool


@dataclass(slots=True)
class UnseenValues:
    """Counts a write's values that belong to records which the writer may not read, and passes the
    count so far to ``note``. A ``dry`` write is rolled back and reports none of them."""

    dry: bool = False
    note: Callable[[int], None] | None = None
    count: int = 0

    def add(self, dataset: Dataset, hits: Iterable[Hit]) -> None:
        """Count hits. Raises ValueTaken if the reply would report more than MOST_UNSEEN."""
        unseen = [hit for hit in hits if hit.unseen]
        if not unseen:
            return
        self.count += len(unseen)
        if self.note is not None:
            self.note(self.count)
        if not self.dry and self.count > MOST_UNSEEN:
            raise value_taken(dataset, [unseen[-1].unique.field], _TOO_MANY)


@functools.cache
def unique_fields(dataset: Dataset) -> tuple[UniqueField, ...]:
    """The unique fields of a dataset."""
    found = []
    table, key = f'{DATA_SCHEMA}."{dataset.name}"', f'"{dataset.key.column}"'
    for index in declared_indexes(dataset).values():
        if not index.field.unique:
            continue
        place, column = dataset.fields.index(index.field), f'"{index.field.column}"'
        unset = None if index.field.nullable else empty_value(index.field)
        holders = (
            f'SELECT s."~at", t.{key} FROM unnest($1::{sql_type(index.field)}[])'
            f' WITH ORDINALITY AS s ("~value", "~at")'
            f' JOIN {table} AS t ON t.{column} = s."~value" WHERE {index.condition}'
        )
        release = f"UPDATE {table} SET {column} = {unset or 'NULL'} WHERE {key} = ANY($1::text[])"
        default = Defaults.of(dataset).value(place)
        found.append(UniqueField(index.field, place, default, holders, release))
    return tuple(found)


def refuse_shared_values(
    dataset: Dataset,
    fields: Sequence[Field],
    pending: Sequence[tuple[int, Sequence[Any]]],
    refused: Refusals | None,
) -> list[tuple[int, Sequence[Any]]]:
    """The rows whose unique values no earlier row has; the others are refused.

    Nothing else decides it, in particular not the stored records, which the writer may not know.
    Raises ValueTaken without ``refused``.
    """
    shared: dict[int, list[Field]] = {}
    for unique in unique_fields(dataset):
        if unique.field not in fields:
            continue
        at, seen = fields.index(unique.field), set()
        for index, row in pending:
            value = row[at]
            if not unique.compares(value):
                continue
            value = "NaN" if value != value else value  # NaN equals itself in the database
            if value in seen:
                shared.setdefault(index, []).append(unique.field)
            seen.add(value)
    if shared and refused is None:
        raise value_taken(dataset, shared[min(shared)])
    for index, faults in shared.items():
        for field in faults:
            assert refused is not None
            refused.add(index, field.path, TAKEN)
    return [(i, row) for i, row in pending if i not in shared]


async def find_hits(
    connection: Connection,
    dataset: Dataset,
    fields: Sequence[Field],
    staged: Staged,
    unread: Unread,
) -> list[Hit]:
    """The values of ``fields`` in staged rows that other records have, in the order of the
    fields."""
    found: list[tuple[int, UniqueField, str]] = []
    keys = staged_keys(dataset, staged)
    for unique in unique_fields(dataset):
        if unique.field not in fields:
            continue
        column = staged.columns[_IMAGES + unique.place]
        rows = [i for i, value in enumerate(column) if unique.compares(value)]
        if rows:
            held = await connection.fetch(unique.holders, [column[i] for i in rows])
            pairs = sorted((rows[at - 1], holder) for at, holder in held)
            found += [(i, unique, holder) for i, holder in pairs if holder != keys[i]]
    hidden: set[str] = set()
    if found and unread.rows is not None:
        holders = sorted({holder for _, _, holder in found})
        outside = await connection.fetch(unread.rows.text, *unread.rows.arguments(keys=holders))
        hidden = {row[0] for row in outside}
    return [Hit(i, u, h, u.field in unread.fields or h in hidden) for i, u, h in found]


def staged_keys(dataset: Dataset, staged: Staged) -> list[str]:
    """The keys of staged rows."""
    places = [_IMAGES + dataset.fields.index(f) for f in dataset.key_fields]
    if not dataset.joins_key:
        return staged.columns[places[0]]
    return [join_key(parts) for parts in zip(*(staged.columns[i] for i in places), strict=True)]


def settle_hits(
    hits: Iterable[Hit], keys: Sequence[str], *, dry: bool
) -> tuple[Mapping[int, list[Hit]], list[Hit]]:
    """The hits that refuse their rows, by row, and those whose holders give up their values.

    A holder among the staged rows gives up its value, since no other row has it, unless its own row
    is refused. In a ``dry`` write, records that the writer may not read refuse nothing.
    """
    place = {key: i for i, key in enumerate(keys)}
    waiting: dict[int, list[Hit]] = {}
    released, refusing = [], []
    for hit in hits:
        if dry and hit.unseen:
            released.append(hit)
        elif hit.holder in place:
            waiting.setdefault(place[hit.holder], []).append(hit)
        else:
            refusing.append(hit)
    taken: dict[int, list[Hit]] = {}
    for hit in refusing:  # the list grows meanwhile
        if hit.row not in taken:
            refusing += waiting.pop(hit.row, [])
        taken.setdefault(hit.row, []).append(hit)
    moved = [hit for group in waiting.values() for hit in group if hit.row not in taken]
    return taken, released + moved


async def settle_values(
    connection: Connection,
    dataset: Dataset,
    fields: Sequence[Field],
    staged: Staged,
    unread: Unread,
    unseen: UnseenValues,
) -> Mapping[int, list[Field]]:
    """By index of a staged row: its fields whose values other records keep. Values that other
    staged rows give up are unset, for the other records to take. Raises ValueTaken after
    MOST_UNSEEN.

    A dry write of several rows does without the values that unseen records have. It could take them
    from these records only by locking them, and its reply does not show its rows.
    """
    hits = await find_hits(connection, dataset, fields, staged, unread)
    if not hits:
        return {}
    taken, released = settle_hits(hits, staged_keys(dataset, staged), dry=unseen.dry)
    unseen.add(dataset, hits if unseen.dry else [h for found in taken.values() for h in found])
    by_field: dict[UniqueField, list[str]] = {}
    for hit in released:
        several = unseen.dry and len(staged) > 1
        if hit.unseen and several and hit.unique.field not in unread.ruled:
            staged.columns[_IMAGES + hit.unique.place][hit.row] = hit.unique.unset
            continue
        by_field.setdefault(hit.unique, []).append(hit.holder)
    for unique, holders in by_field.items():
        await connection.execute(unique.release, holders)
    return {at: [hit.unique.field for hit in found] for at, found in taken.items()}


def value_taken(dataset: Dataset, fields: Sequence[Field], problem: str = TAKEN) -> ValueTaken:
    """The error of a record with these values. It names no other record."""
    names = ", ".join(f.path for f in fields)
    return ValueTaken(
        f"{dataset.singular}: {names}: {problem}",
        violations=[Violation(f.path, problem) for f in fields],
        metadata={"dataset": dataset.name, "field": names},
    )
