"""A PostgreSQL server for tests, and databases on it that each belong to one test."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Iterator
from typing import TypeVar

import asyncpg

from harness import folder
from penstockd.node.postgres import EmbeddedPostgres
from penstockd.node.sockets import sockets_folder

T = TypeVar("T")
_names = (f"test_{i}" for i in itertools.count())


@contextlib.asynccontextmanager
async def running_postgres() -> AsyncIterator[EmbeddedPostgres]:
    """Run a server with an empty database ``penstock`` during the block."""
    with folder() as data:
        server = EmbeddedPostgres(data, sockets_folder(data))
        await server.start()
        try:
            yield server
        finally:
            await server.stop()


@contextlib.asynccontextmanager
async def own_database(server: EmbeddedPostgres, template: str = "template1") -> AsyncIterator[str]:
    """The URL of a database that is a copy of ``template`` and is dropped after the block."""
    name = next(_names)
    owner = await asyncpg.connect(server.dsn.replace("/penstock?", "/postgres?"))
    try:
        await owner.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        yield server.dsn.replace("/penstock?", f"/{name}?")
        await owner.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await owner.close()


@contextlib.contextmanager
def entered(manager: contextlib.AbstractAsyncContextManager[T]) -> Iterator[T]:
    """Enter an asynchronous context from a synchronous fixture."""
    with asyncio.Runner() as runner:
        stack = contextlib.AsyncExitStack()
        try:
            yield runner.run(stack.enter_async_context(manager))
        finally:
            runner.run(stack.aclose())
