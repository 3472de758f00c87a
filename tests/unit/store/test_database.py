"""Connections that a network lost are noticed, and none is lent to a call."""

from __future__ import annotations

import ast
import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

import penstockd
from cutting import wired
from penstockd.errors import DatabaseUnavailable
from penstockd.store import pool as module
from penstockd.store.database import Database
from penstockd.store.migrate import make_engine
from penstockd.store.session import SIGN_TIMEOUT
from penstockd.store.sockets import SERVER_SETTINGS, open_session, socket_of, socket_options

SOURCES = Path(penstockd.__file__).parent
#: Where the driver's own connect is called: in the one place, for the pool, and on Unix sockets.
OPENERS = {"store/sockets.py", "store/pool.py", "node/postgres.py"}


async def _lend_at_once(database: Database, count: int) -> None:
    """Use so many connections at the same time, so that as many lie idle afterwards."""
    async with asyncio.TaskGroup() as group:
        for _ in range(count):
            group.create_task(_query(database, "SELECT pg_sleep(0.05)"))


async def _query(database: Database, sql: str = "SELECT 1") -> object:
    async with database.connection() as connection:
        return await connection.fetchval(sql)


def test_every_session_is_opened_in_one_place() -> None:
    found = set()
    for path in SOURCES.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Attribute)
                and node.attr in ("connect", "create_pool")
                and isinstance(node.value, ast.Name)
                and node.value.id == "asyncpg"
            ):
                found.add(str(path.relative_to(SOURCES)))
    assert found == OPENERS


async def test_both_ends_watch_every_session_over_tcp(empty_url: str) -> None:
    with wired(empty_url) as (dsn, _):
        database = Database(dsn, size=2)
        await database.open()
        single = await database.connect()
        async with database.connection() as pooled, make_engine(dsn).connect() as engine:
            raw = await engine.get_raw_connection()
            sessions: list[Any] = [single, pooled, raw.driver_connection]
            for connection in sessions:
                watched = socket_of(connection)
                for (level, option), value in socket_options().items():
                    assert watched.getsockopt(level, option) == value
                names = list(SERVER_SETTINGS)
                rows = await connection.fetch(
                    "SELECT name, source FROM pg_settings WHERE name = ANY ($1)", names
                )
                assert {tuple(r) for r in rows} == {(name, "client") for name in names}
        single.terminate()
        await database.close()


async def test_a_slow_reader_of_a_snapshot_is_not_taken_for_a_lost_one(empty_url: str) -> None:
    database = Database(empty_url, size=1)
    await database.open()
    source = "SELECT source FROM pg_settings WHERE name = 'tcp_user_timeout'"
    async with database.snapshot() as connection:
        assert await connection.fetchval(source) == "session"
    async with database.connection() as connection:
        assert await connection.fetchval(source) == "client"
    await database.close()


async def test_idle_connections_that_a_network_lost_are_lent_to_nobody(
    empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "IDLE_UNCHECKED", 0.0)
    with wired(empty_url) as (dsn, wire):
        database = Database(dsn, size=6)
        await database.open()
        await _lend_at_once(database, 6)
        wire.lose()
        began = time.monotonic()
        async with asyncio.timeout(60):
            assert await _query(database) == 1
            taken = time.monotonic() - began
            await _lend_at_once(database, 6)
        # One sign of life that did not come was enough for all six.
        assert time.monotonic() - began - taken < 6 * SIGN_TIMEOUT + taken
        await database.close()


async def test_a_call_would_wait_for_a_lost_connection_that_is_not_asked(
    empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control: so it was."""
    monkeypatch.setattr(module, "IDLE_UNCHECKED", 1e9)
    with wired(empty_url) as (dsn, wire):
        database = Database(dsn, size=2)
        await database.open()
        await _lend_at_once(database, 2)
        wire.lose()
        call = asyncio.create_task(_query(database))
        done, _ = await asyncio.wait({call}, timeout=2 * SIGN_TIMEOUT)
        assert not done
        database.abandon()
        with pytest.raises(DatabaseUnavailable):
            await call
        await database.close()


async def test_a_pulse_that_is_lost_puts_all_idle_connections_in_doubt(empty_url: str) -> None:
    with wired(empty_url) as (dsn, wire):
        database = Database(dsn, size=4)
        await database.open()
        await database.ping()
        await _lend_at_once(database, 4)
        wire.lose()
        with pytest.raises(DatabaseUnavailable):
            await database.ping()
        async with asyncio.timeout(60):
            assert await _query(database) == 1
        await database.close()


async def test_a_session_on_a_unix_socket_is_left_as_it_is(empty_url: str) -> None:
    connection = await open_session(empty_url)
    assert await connection.fetchval("SELECT 1") == 1
    await connection.close()
