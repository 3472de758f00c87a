"""Indexes and unique constraints that the model declares (``indexed``, ``unique``).

They are made after the migration's transaction, without blocking writers (CONCURRENTLY), and
removed when the model no longer declares them. An interrupted creation leaves an invalid index,
which the next migration replaces.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import asyncpg
from sqlalchemy import Connection, text

from penstockd.catalog import Catalog, Dataset, Field
from penstockd.catalog.model import column_name
from penstockd.store.tables import DATA_SCHEMA, empty_value

#: The ends of the names of declared indexes; no other index has them.
_UNIQUE, _PLAIN = "~unique", "~index"
#: How often to try for the lock under which only one process at a time creates indexes, in seconds.
_AGAIN = 0.2
_LOCK = "hashtext('penstock.indexes')"


@dataclass(frozen=True, slots=True)
class DeclaredIndex:
    """An index of one field."""

    dataset: str
    field: Field
    name: str

    @property
    def condition(self) -> str:
        """The rows that a unique index compares: those with a value that is set."""
        column = f'"{self.field.column}"'
        unset = None if self.field.nullable else empty_value(self.field)
        return f"{column} IS NOT NULL" if unset is None else f"{column} <> {unset}"

    @property
    def sql(self) -> str:
        """The statement that creates it."""
        kind = "UNIQUE INDEX" if self.field.unique else "INDEX"
        where = f" WHERE {self.condition}" if self.field.unique else ""
        return (
            f'CREATE {kind} CONCURRENTLY "{self.name}"'
            f' ON {DATA_SCHEMA}."{self.dataset}" ("{self.field.column}"){where}'
        )


@functools.cache
def declared_indexes(dataset: Dataset) -> Mapping[str, DeclaredIndex]:
    """The indexes that the model declares, by name."""
    found = {}
    for field in dataset.fields:
        if field.unique or field.indexed:
            end = _UNIQUE if field.unique else _PLAIN
            name = column_name(f"{dataset.name}.{field.path}{end}")
            if not name.endswith(end):  # it is too long, and was shortened
                name = name[: 63 - len(end)] + end
            found[name] = DeclaredIndex(dataset.name, field, name)
    return found


def find_duplicates(
    connection: Connection, dataset: Dataset, index: DeclaredIndex
) -> list[tuple[str, str]]:
    """The keys of pairs of records with the same value of a field that must be unique: a pair for
    each of the first few values."""
    column, key = f'"{index.field.column}"', f'"{dataset.key.column}"'
    rows = connection.execute(
        text(
            f'SELECT min({key}), max({key}) FROM {DATA_SCHEMA}."{dataset.name}"'
            f" WHERE {index.condition} GROUP BY {column} HAVING count(*) > 1 ORDER BY 1 LIMIT 5"
        )
    )
    return [(row[0], row[1]) for row in rows]


def present_indexes(connection: Connection) -> set[str]:
    """The names of all declared indexes that the database has and that are valid."""
    return {row[0] for row in connection.execute(text(_PRESENT)) if row[1]}


def is_indexed(connection: Connection, dataset: str, column: str) -> bool:
    """Whether an index over all rows, of any name, begins with the column."""
    sql = (
        "SELECT EXISTS (SELECT FROM pg_index AS i JOIN pg_attribute AS a"
        " ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]"
        " WHERE i.indrelid = CAST(:table AS regclass) AND a.attname = :column"
        " AND i.indpred IS NULL AND i.indisvalid)"
    )
    given = {"table": f'{DATA_SCHEMA}."{dataset}"', "column": column}
    return bool(connection.execute(text(sql), given).scalar_one())


def undeclared_indexes(connection: Connection, dataset: Dataset) -> list[str]:
    """What the indexes of a dataset are that the model no longer declares, such as "customers.email
    is no longer unique"."""
    wanted, found = declared_indexes(dataset), list[str]()
    for name, _, table in connection.execute(text(_PRESENT)):
        if table == dataset.name and name not in wanted:
            unique = name.endswith(_UNIQUE)
            field = name.removesuffix(_UNIQUE if unique else _PLAIN)
            found.append(f"{field} is no longer {'unique' if unique else 'indexed'}")
    return sorted(found)


_PRESENT = f"""
SELECT c.relname, i.indisvalid, t.relname FROM pg_index AS i
JOIN pg_class AS c ON c.oid = i.indexrelid
JOIN pg_class AS t ON t.oid = i.indrelid
JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE n.nspname = '{DATA_SCHEMA}'
    AND (c.relname LIKE '%{_UNIQUE}' OR c.relname LIKE '%{_PLAIN}')
"""


async def make_indexes(driver: asyncpg.Connection[Any], catalog: Catalog) -> None:
    """Create the declared indexes that are missing and drop those that are no longer declared.

    Raises asyncpg.UniqueViolationError if records share a value by now.
    """
    wanted = {name: index for d in catalog for name, index in declared_indexes(d).items()}
    if not list(_find_differences(wanted, await driver.fetch(_PRESENT))):
        return
    async with _stands_alone(driver):
        for sql in list(_find_differences(wanted, await driver.fetch(_PRESENT))):
            await driver.execute(sql)


def _find_differences(wanted: Mapping[str, DeclaredIndex], present: Any) -> Iterator[str]:
    valid = {row[0] for row in present if row[1]}
    for name, is_valid in ((row[0], row[1]) for row in present):
        if not is_valid or name not in wanted:
            yield f'DROP INDEX CONCURRENTLY IF EXISTS {DATA_SCHEMA}."{name}"'
    for name, index in wanted.items():
        if name not in valid:
            yield index.sql


@asynccontextmanager
async def _stands_alone(driver: asyncpg.Connection[Any]) -> AsyncIterator[None]:
    """Hold the lock. It is tried for again and again: a statement that waits for it has a snapshot,
    and the creation of an index waits for older snapshots."""
    while not await driver.fetchval(f"SELECT pg_try_advisory_lock({_LOCK})"):  # noqa: ASYNC110  # in another process
        await asyncio.sleep(_AGAIN)
    try:
        yield
    finally:
        await driver.execute(f"SELECT pg_advisory_unlock({_LOCK})")
