"""Connections that a network lost are noticed, and no call gets one."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import socket
from pathlib import Path
from typing import Any

import asyncpg
import pytest

import penstockd
from cutting import wired
from harness import PATIENCE, free_port
from penstockd import budget
from penstockd.config import Settings
from penstockd.errors import DatabaseUnavailable
from penstockd.spools import SpoolPlace
from penstockd.store import pool as module
from penstockd.store.database import Database, Division, Limits, WorkKind
from penstockd.store.migrate import make_engine
from penstockd.store.session import SIGN_TIMEOUT, as_ours, gives_sign
from penstockd.store.sockets import (
    SERVER_SETTINGS,
    open_session,
    read_hosts,
    socket_of,
    socket_options,
)

SOURCES = Path(penstockd.__file__).parent
#: The places that call the driver's own connect: the one place, for the pool, and for Unix sockets.
OPENERS = {"store/sockets.py", "store/pool.py", "node/postgres.py", "node/restore.py"}


async def _lend_at_once(database: Database, count: int) -> set[int]:
    """Use that many connections at the same time, so that as many are idle afterwards. Returns
    their server processes."""
    all_lent = asyncio.Barrier(count)

    async def use() -> int:
        async with database.connection() as connection:
            await all_lent.wait()
            return int(await connection.fetchval("SELECT pg_backend_pid()"))

    async with asyncio.timeout(60):
        pids = set(await asyncio.gather(*(use() for _ in range(count))))
    assert len(pids) == count
    return pids


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
                    "SELECT name, source FROM pg_settings WHERE lower(name) = ANY ($1)", names
                )
                assert {(r[0].lower(), r[1]) for r in rows} == {(name, "client") for name in names}
        single.terminate()
        await database.close()


async def test_what_is_confirmed_is_on_disk_whatever_a_role_or_database_sets(
    empty_url: str,
) -> None:
    (offered,) = await _query_once(
        empty_url, "SELECT enumvals FROM pg_settings WHERE name = 'synchronous_commit'"
    )
    assert {"off", "on", "remote_apply"} < set(offered)
    for value in offered:
        await _query_once(
            empty_url,
            "DO $$ BEGIN EXECUTE format("
            f"'ALTER DATABASE %I SET synchronous_commit = {value}', current_database()); END $$",
        )
        found = []
        single = await open_session(empty_url)
        found.append(await single.fetchval("SHOW synchronous_commit"))
        single.terminate()
        database = Database(empty_url, division=Division(16))
        await database.open()
        for kind in WorkKind:
            async with database.connection(kind) as connection:
                found.append(await connection.fetchval("SHOW synchronous_commit"))
        await database.close()
        kept = value if value == "remote_apply" else "on"
        # The negative control: the settings of other programs' sessions.
        assert await _query_once(empty_url, "SHOW synchronous_commit") == [value]
        assert set(found) == {kept}, value


async def _query_once(dsn: str, sql: str) -> list[Any]:
    """The first column, in a session of the driver's own."""
    connection = await asyncpg.connect(dsn)
    try:
        return [row[0] for row in await connection.fetch(sql)]
    finally:
        await connection.close()


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
    asked: list[int] = []

    async def note_asked(connection: Any) -> bool:
        asked.append(connection.get_server_pid())
        return await gives_sign(connection)

    monkeypatch.setattr(module, "IDLE_UNCHECKED", 0.0)
    monkeypatch.setattr(module, "gives_sign", note_asked)
    with wired(empty_url) as (dsn, wire):
        database = Database(dsn, size=6)
        await database.open()
        lost = await _lend_at_once(database, 6)
        asked.clear()
        wire.lose()
        async with asyncio.timeout(60):
            assert await _query(database) == 1
        assert not lost & await _lend_at_once(database, 6)
        # One missing sign of life was enough for all six.
        assert len([pid for pid in asked if pid in lost]) == 1
        await database.close()


async def test_a_call_would_wait_for_a_lost_connection_that_is_not_asked(
    empty_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control: the earlier behaviour."""
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


def test_whoever_opens_connections_says_their_limits() -> None:
    """A lane without limits would let one locked table, or one COMMIT, hold a connection for
    ever."""
    silent = []
    for path in SOURCES.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                told = {keyword.arg for keyword in node.keywords}
                if node.func.id == "Database" and not told & {"limits", "division"}:
                    silent.append(f"{path.relative_to(SOURCES)}:{node.lineno}")
    assert not silent
    with pytest.raises(ValueError, match="why"):
        Limits(lock=0.0, statement=1.0)


async def test_every_lane_has_its_limits_whatever_the_role_sets(empty_url: str) -> None:
    """A role's time limits would end exports, idle connections or migrations."""
    timeouts = (
        "SELECT name FROM pg_settings WHERE name LIKE '%\\_timeout' AND context = 'user'"
        " AND name NOT LIKE 'tcp%' AND name <> 'wal_sender_timeout'"  # the latter is for standbys
    )
    owner = await asyncpg.connect(empty_url)
    names = [row[0] for row in await owner.fetch(timeouts)]
    assert len(names) >= 4
    name = await owner.fetchval("SELECT quote_ident(current_database())")
    # It is dropped with the test's database.
    role = f"ALTER ROLE CURRENT_USER IN DATABASE {name} SET"
    for timeout in names:
        await owner.execute(f"{role} {timeout} = '7s'")
    await owner.execute(f"{role} default_transaction_isolation = serializable")
    query = "SELECT name, setting FROM pg_settings WHERE name = ANY ($1) OR name = $2"

    async def read(session: Any) -> dict[str, str]:
        rows = await session.fetch(query, names, "default_transaction_isolation")
        return {row[0]: row[1] for row in rows}

    # The negative control: a session that overrides nothing has the role's.
    plain = await asyncpg.connect(empty_url)
    assert set((await read(plain)).values()) == {"7000", "serializable"}
    await plain.close()
    database = Database(empty_url, division=Division(connections=16, lock=3.0))
    await database.open()
    found: dict[str, dict[str, str]] = {}
    for kind in WorkKind:
        async with database.connection(kind) as connection:
            found[kind.value] = await read(connection)
            assert found[kind.value]["lock_timeout"] == "3000"
            assert found[kind.value]["idle_in_transaction_session_timeout"] == "60000"
    single = await database.connect()
    found["single"] = await read(single)
    single.terminate()
    async with make_engine(empty_url).connect() as engine:
        found["migrations"] = await read((await engine.get_raw_connection()).driver_connection)
    for who, settings in found.items():
        assert "7000" not in settings.values(), who
        assert settings["default_transaction_isolation"] == "read committed", who
    await database.close()
    await owner.close()


async def test_of_several_hosts_one_that_answers_is_used(empty_url: str) -> None:
    """Even if another host accepts connections and stays silent: each attempt begins where one
    worked."""
    silent = socket.create_server(("127.0.0.1", 0))  # nobody accepts
    port = silent.getsockname()[1]
    with wired(empty_url) as (dsn, wire):
        here = f"127.0.0.1:{wire.port}"
        for others in (f"127.0.0.1:{free_port()},", f"127.0.0.1:{port},"):
            database = Database(dsn.replace(here, others + here), size=2)
            async with asyncio.timeout(PATIENCE):
                while True:  # the first attempt may have given up on the silent host
                    with contextlib.suppress(DatabaseUnavailable):
                        await database.open()
                        break
                assert await _query(database) == 1
            await database.close()
    silent.close()


def test_the_hosts_of_a_url() -> None:
    assert read_hosts("postgresql://u:p@a:1,b/d") == [("a", 1), ("b", None)]
    assert read_hosts("postgresql:///d?host=/run/a,/run/b&port=7") == [("/run/a", 7), ("/run/b", 7)]
    assert read_hosts("postgresql://u@[::1]:6/d") == [("::1", 6)]


def test_a_url_with_several_hosts_is_accepted_and_one_for_standbys_is_not() -> None:
    url = "postgresql://u:p@a:5432,b:5433/d"
    assert Settings(database_url=url).database_url == url
    assert Settings(database_url=f"{url}?target_session_attrs=read-write")
    for wrong in (f"{url}?target_session_attrs=standby", "postgresql://u:p@a:5432,b:x/d"):
        with pytest.raises(ValueError, match="database_url") as refused:
            Settings(database_url=wrong)
        assert "u:p@" not in str(refused.value).split("[type=")[0]


async def test_only_the_drivers_errors_are_the_databases(empty_url: str) -> None:
    """A full disk under the hub's own files says nothing about the database."""
    database = Database(empty_url, size=1)
    await database.open()

    async def keep(_: bytes) -> None:
        SpoolPlace(Path("/nowhere")).check_room(1)

    try:
        with pytest.raises(FileNotFoundError):
            async with database.transaction():
                await asyncio.create_task(keep(b""))
        bare = await database.connect()
        try:
            with pytest.raises(FileNotFoundError) as raised:
                await bare.copy_from_query("SELECT 1", output=keep)
            assert as_ours(raised.value) is None, "what the driver calls is no driver"
        finally:
            bare.terminate()
    finally:
        await database.close()
    # The control: nobody listens, even if the error passes through the steps of a call.
    for url in (f"postgresql://a@127.0.0.1:{free_port()}/b", "postgresql://a@/b?host=/nowhere"):
        lost = Database(url, size=1)
        with pytest.raises(DatabaseUnavailable):
            await lost.open()
        with pytest.raises(DatabaseUnavailable):
            await budget.await_metered(budget.Budget("test", None), lost.connect())
