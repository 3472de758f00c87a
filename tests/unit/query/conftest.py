"""Shared by the tests of queries: names over given columns, and statements on a database."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import asyncpg
import pytest
from sqlalchemy import ColumnElement, Executable
from sqlalchemy.ext.asyncio import create_async_engine

from penstockd.catalog import Field
from penstockd.query import Names, Wrap

NamesOf = Callable[..., Names]
Run = Callable[..., list[Any]]


class Given:
    """Names over fields and their columns; ``references`` maps an alias to its target."""

    def __init__(
        self,
        columns: Mapping[Field, ColumnElement[Any]],
        references: Mapping[str, tuple[Names, Wrap]] | None = None,
    ) -> None:
        self._columns = {f.path: c for f, c in columns.items()}
        self._fields = tuple(columns)
        self._found = {f.json_path: f for f in columns} | {f.path: f for f in columns}
        self._references = references or {}

    def fields(self) -> Sequence[Field]:
        return self._fields

    def field(self, path: str) -> Field | None:
        return self._found.get(path)

    def members(self, field: Field) -> Sequence[Field]:
        return field.members

    def column(self, field: Field) -> ColumnElement[Any]:
        return self._columns[field.path]

    def follow(self, alias: str) -> tuple[Names, Wrap] | None:
        return self._references.get(alias)


@pytest.fixture(scope="session")
def names_of() -> NamesOf:
    return Given


@pytest.fixture(scope="module")
def run(module_url: str) -> Iterator[Run]:
    """Executes statements, each in its own transaction, on a database of the module.

    Returns the rows of statements that return any, else an empty list.
    """
    engine = create_async_engine(
        "postgresql+asyncpg://",
        async_creator=lambda: asyncpg.connect(module_url),
        pool_size=1,
        query_cache_size=0,
    )

    async def execute(statement: Executable, parameters: Any) -> list[Any]:
        async with engine.begin() as connection:
            result = await connection.execute(statement, parameters)
            return list(result.all()) if result.returns_rows else []

    with asyncio.Runner() as runner:
        yield lambda statement, parameters=None: runner.run(execute(statement, parameters))
        runner.run(engine.dispose())
