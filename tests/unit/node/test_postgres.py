"""The embedded PostgreSQL: it starts, keeps its data however it ends, and runs only once."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import psutil
import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import create_async_engine

from harness import folder
from penstockd.node.errors import FolderUnusable, ProcessFailed
from penstockd.node.postgres import EmbeddedPostgres, find_psql
from penstockd.node.sockets import sockets_folder


def embedded(data: Path) -> EmbeddedPostgres:
    return EmbeddedPostgres(data, sockets_folder(data))


@pytest.fixture
async def postgres(tmp_path: Path) -> AsyncIterator[EmbeddedPostgres]:
    server = embedded(tmp_path)
    await server.start()
    yield server
    await server.stop()


async def run(server: EmbeddedPostgres, statement: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(server.dsn)
    try:
        return list(await connection.fetch(statement))
    finally:
        await connection.close()


async def insert(server: EmbeddedPostgres) -> None:
    await run(server, "CREATE TABLE t AS SELECT 1 AS a")


async def test_every_client_can_use_its_urls(postgres: EmbeddedPostgres) -> None:
    engine = create_async_engine(postgres.url)
    async with engine.connect() as connection:
        assert (await connection.scalar(sa.text("SELECT current_database()"))) == "penstock"
    await engine.dispose()
    command = [str(find_psql()), postgres.dsn, "-Atc", "SELECT current_user"]
    client = await asyncio.create_subprocess_exec(
        *command,
        stdout=asyncio.subprocess.PIPE,
        env={"PGPORT": "1", "PATH": os.environ["PATH"]},
    )
    output, _ = await client.communicate()
    assert (client.returncode, output) == (0, b"penstock\n")


async def test_its_settings(postgres: EmbeddedPostgres) -> None:
    rows = await run(
        postgres,
        "SELECT name, setting FROM pg_settings WHERE name IN ('data_checksums', 'fsync', 'jit', "
        "'listen_addresses', 'max_connections', 'server_encoding', 'synchronous_commit', "
        "'wal_level', 'idle_in_transaction_session_timeout')",
    )
    assert {row["name"]: row["setting"] for row in rows} == {
        "data_checksums": "on",
        "fsync": "on",
        "jit": "off",
        "listen_addresses": "",
        "max_connections": "200",
        "server_encoding": "UTF8",
        "synchronous_commit": "on",
        "wal_level": "replica",
        "idle_in_transaction_session_timeout": "60000",
    }
    locale = await run(
        postgres, "SELECT datlocprovider::text, datlocale FROM pg_database WHERE datname='penstock'"
    )
    assert tuple(locale[0]) == ("b", "C.UTF-8")


async def test_only_its_owner_reaches_it(postgres: EmbeddedPostgres) -> None:
    socket = postgres.socket / ".s.PGSQL.5432"
    assert stat.S_IMODE(socket.stat().st_mode) == 0o700
    assert stat.S_IMODE(postgres.cluster.stat().st_mode) == 0o700


async def test_the_users_own_settings_win(tmp_path: Path) -> None:
    server = embedded(tmp_path)
    await server.start()
    await server.stop()
    with (server.cluster / "postgresql.conf").open("a") as file:
        file.write("max_connections = 50\n")
    await server.start()
    assert (await run(server, "SHOW max_connections"))[0][0] == "50"
    await server.stop()


async def test_a_restart_keeps_the_data(postgres: EmbeddedPostgres) -> None:
    await insert(postgres)
    assert postgres.process is not None
    pid = postgres.process.pid
    await postgres.stop()
    assert not psutil.pid_exists(pid)
    assert not (postgres.cluster / "postmaster.pid").exists()
    await postgres.start()
    assert (await run(postgres, "SELECT a FROM t"))[0]["a"] == 1


async def test_it_recovers_from_a_kill(postgres: EmbeddedPostgres) -> None:
    await insert(postgres)
    for _ in range(2):
        assert postgres.process is not None
        # A backend works while its postmaster dies.
        connection = await asyncpg.connect(postgres.dsn)
        busy = asyncio.create_task(connection.execute("SELECT pg_sleep(60)"))
        os.kill(postgres.process.pid, signal.SIGKILL)
        assert await postgres.process.wait() == -signal.SIGKILL
        with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
            await busy
        await postgres.start()
        assert (await run(postgres, "SELECT a FROM t"))[0]["a"] == 1


async def test_a_server_left_running_is_ended_first(tmp_path: Path) -> None:
    # A supervisor without a guard starts the server and is killed.
    program = (
        "import asyncio, os, signal, sys; from pathlib import Path\n"
        "from penstockd.node.postgres import EmbeddedPostgres\n"
        "from penstockd.node.sockets import sockets_folder\n"
        "data = Path(sys.argv[1])\n"
        "asyncio.run(EmbeddedPostgres(data, sockets_folder(data)).start())\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", program, str(tmp_path)], check=False
    )
    assert done.returncode == -signal.SIGKILL
    server = embedded(tmp_path)
    leftover = int((server.cluster / "postmaster.pid").read_text().split()[0])
    assert psutil.pid_exists(leftover)
    await insert(server)
    await server.start()
    assert server.process is not None
    assert server.process.pid != leftover
    assert (await run(server, "SELECT a FROM t"))[0]["a"] == 1
    await server.stop()


async def test_a_stale_pid_file_names_nobody(tmp_path: Path) -> None:
    server = embedded(tmp_path)
    await server.start()
    pid_file = server.cluster / "postmaster.pid"
    content = pid_file.read_text().split("\n")
    await server.stop()
    # The id now belongs to an unrelated process.
    bystander = subprocess.Popen(["sleep", "600"])  # noqa: ASYNC220
    try:
        pid_file.write_text("\n".join([str(bystander.pid), *content[1:]]))
        if os.geteuid() == 0:
            os.chown(pid_file, server.cluster.stat().st_uid, -1)
        await server.start()
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()
        await server.stop()


async def test_a_half_made_cluster_is_made_anew(tmp_path: Path) -> None:
    half = tmp_path / "postgres.new"
    half.mkdir()
    (half / "PG_VERSION").write_text("18\n")
    server = embedded(tmp_path)
    await server.start()
    assert (await run(server, "SELECT 1 AS a"))[0]["a"] == 1
    await server.stop()
    assert not half.exists()


async def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    server = embedded(tmp_path)
    await server.start()
    await server.stop()
    with (server.cluster / "postgresql.conf").open("a") as file:
        file.write("no_such_setting = 1\n")
    with pytest.raises(ProcessFailed, match="no_such_setting"):
        await server.start()


async def test_a_folder_that_cannot_be_made_is_said() -> None:
    with folder() as short:  # with a long path the sockets are elsewhere
        blocked = short / "file"
        blocked.write_text("not a folder")
        with pytest.raises(FolderUnusable, match="file"):
            embedded(blocked / "data")


def test_long_paths_get_short_sockets(tmp_path: Path) -> None:
    data = tmp_path / ("d" * 120)
    folder = sockets_folder(data)
    try:
        assert len(str(folder)) < 80
        assert folder == sockets_folder(data)
        assert folder != sockets_folder(tmp_path / ("e" * 120))
        folder.chmod(0o777)
        with pytest.raises(FolderUnusable, match="nobody else"):
            sockets_folder(data)
    finally:
        folder.rmdir()
        sockets_folder(tmp_path / ("e" * 120)).rmdir()
