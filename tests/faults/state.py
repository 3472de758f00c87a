"""The records of a hub or a database, in the form of the log."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import asyncpg

from faults.validator import State, read_marks, read_table
from harness import RunningHub
from penstockd.catalog import Catalog

T = TypeVar("T")


async def table_of(hub: RunningHub, catalog: Catalog) -> State:
    """All records of all datasets of a hub."""
    return await asyncio.to_thread(table_at, hub.dsn, catalog)


def table_at(url: str, catalog: Catalog) -> State:
    """All records of all datasets of a database."""
    return _read_at(url, lambda connection: read_table(connection, catalog))


def marks_at(url: str) -> dict[int, bytes]:
    """The marks of a database's log."""
    return _read_at(url, read_marks)


def _read_at(url: str, read: Callable[[asyncpg.Connection[asyncpg.Record]], Awaitable[T]]) -> T:
    async def work() -> T:
        connection = await asyncpg.connect(url)
        try:
            return await read(connection)
        finally:
            await connection.close()

    return asyncio.run(work())
