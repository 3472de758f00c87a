"""Values that no two records may share: what a write would bring, compared with what is there.

The database's unique indexes decide. Looking first tells which row of a batch is at fault and
which field, which an index does not say without ending the transaction.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from penstockd.catalog import Dataset, Field
from penstockd.errors import ValueTaken, Violation
from penstockd.store.indexes import declared_indexes
from penstockd.store.rows import Defaults
from penstockd.store.session import Connection
from penstockd.store.staging import Staged
from penstockd.store.tables import DATA_SCHEMA, sql_type

TAKEN = "another record has this value already"
_IMAGES = 2  # columns of staged rows before those of the fields


@dataclass(frozen=True, slots=True)
class UniqueField:
    """A unique field: its place in the dataset's fields, the value that is not compared, and SQL
    for the keys and values of records that hold one of some values ($1) and are none of some ($2).
    """

    field: Field
    place: int
    unset: object
    sql: str


@functools.cache
def unique_fields(dataset: Dataset) -> tuple[UniqueField, ...]:
    """The unique fields of a dataset."""
    found = []
    for index in declared_indexes(dataset).values():
        if not index.field.unique:
            continue
        place = dataset.fields.index(index.field)
        column, key = f'"{index.field.column}"', f'"{dataset.key.column}"'
        sql = (
            f'SELECT {column} FROM {DATA_SCHEMA}."{dataset.name}"'
            f" WHERE {column} = ANY($1::{sql_type(index.field)}[]) AND {index.condition}"
            f" AND {key} <> ALL($2::text[])"
        )
        found.append(UniqueField(index.field, place, Defaults.of(dataset).value(place), sql))
    return tuple(found)


async def find_taken(
    connection: Connection, dataset: Dataset, staged: Staged
) -> dict[int, list[Field]]:
    """By index of a staged row: its fields whose value another record, or an earlier row, has."""
    taken: dict[int, list[Field]] = {}
    key_at = _IMAGES + dataset.fields.index(dataset.key)
    for unique in unique_fields(dataset):
        column = staged.columns[_IMAGES + unique.place]
        values = [v for v in column if v is not None and v != unique.unset]
        if not values:
            continue
        rows = await connection.fetch(unique.sql, values, staged.columns[key_at])
        seen = {row[0] for row in rows}
        for i, value in enumerate(column):
            if value is None or value == unique.unset:
                continue
            if value in seen:
                taken.setdefault(i, []).append(unique.field)
            seen.add(value)
    return taken


def value_taken(dataset: Dataset, fields: Sequence[Field]) -> ValueTaken:
    """The error of a record with these values. It names no other record."""
    names = ", ".join(f.path for f in fields)
    return ValueTaken(
        f"{dataset.singular}: {names}: {TAKEN}",
        violations=[Violation(f.path, TAKEN) for f in fields],
        metadata={"dataset": dataset.name, "field": names},
    )
