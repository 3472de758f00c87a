"""The same random records in PostgreSQL and as images of the log, and random Views of them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from penstockd.catalog import Catalog, Dataset, Field
from penstockd.catalog.wire import WireCodec
from penstockd.policy.model import Action
from penstockd.policy.view import View
from penstockd.query import compile_filter, parse_filter
from penstockd.store.columns import table_ddl
from penstockd.store.sql import compile_statement
from penstockd.store.tables import Tables
from worlds import catalog_of, random_grants, random_rows

CLAIMS = {"one": ("a",), "some": ("a", "ab", "z@x.org"), "none": ()}
MASK_KEY = b"mask-key-" * 4


@dataclass
class World:
    """The same records in PostgreSQL and as images."""

    catalog: Catalog
    tables: Tables
    images: Mapping[str, Mapping[str, bytes]]
    runner: asyncio.Runner
    connection: Any

    def find(self, dataset: str, key: str) -> bytes | None:
        """The image of a record."""
        return self.images[dataset].get(key)

    def view(self, dataset: Dataset, rng: random.Random) -> View:
        """The View of a random reader."""
        grants = random_grants(self.catalog, dataset, rng, list(CLAIMS))
        return View(
            dataset,
            self.catalog,
            self.tables,
            grants,
            revision=1,
            mask_key=MASK_KEY,
            on=[Action.READ],
            claims=CLAIMS,
        )

    def rows(self, view: View, fields: Sequence[Field], filter: str) -> dict[str, Sequence[Any]]:
        """The fields' values in PostgreSQL, by key."""
        condition = compile_filter(parse_filter(filter), view) if filter else None
        columns = [view.column(f).label(f.column) for f in fields]
        selected = view.narrow([view.key_column.label("__key"), *columns], condition)
        statement = compile_statement(selected)
        found = self.runner.run(self.connection.fetch(statement.text, *statement.arguments()))
        return {row[0]: tuple(row)[1:] for row in found}


@contextmanager
def open_world(
    dsn: str,
    folder: Path,
    seed: int,
    models: Sequence[Path] = (),
    draw: Callable[[Catalog, Dataset, random.Random], list[list[Any]]] = random_rows,
) -> Iterator[World]:
    """A world of random records in an empty database; ``models`` are files of more datasets."""
    catalog = catalog_of(folder, *models)
    tables, rng = Tables(catalog), random.Random(seed)
    rows = {d.name: draw(catalog, d, rng) for d in catalog}
    images = {d.name: images_of(d, rows[d.name]) for d in catalog}
    with asyncio.Runner() as runner:
        connection = runner.run(filled(dsn, catalog, tables, rows))
        yield World(catalog, tables, images, runner, connection)
        runner.run(connection.close())


def images_of(dataset: Dataset, rows: Sequence[Sequence[Any]]) -> dict[str, bytes]:
    """The log's images of full rows, by key."""
    images = WireCodec(dataset).images([list(c) for c in zip(*rows, strict=True)])
    at = dataset.fields.index(dataset.key)
    return {row[at]: image for row, image in zip(rows, images, strict=True)}


async def filled(
    dsn: str, catalog: Catalog, tables: Tables, rows: Mapping[str, Sequence[Sequence[Any]]]
) -> Any:
    """A connection to a database that holds the rows."""
    connection = await asyncpg.connect(dsn)
    await connection.execute("CREATE SCHEMA IF NOT EXISTS data")
    for dataset in catalog:
        await connection.execute(table_ddl(dataset, tables[dataset.name]))
        await connection.copy_records_to_table(
            dataset.name,
            schema_name="data",
            records=[tuple(r) for r in rows[dataset.name]],
            columns=[f.column for f in dataset.fields],
        )
    return connection
