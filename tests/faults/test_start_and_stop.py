"""Starts and stops: what they keep, what they leave behind, and the error of a start that fails."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import jwt
import psutil
import pytest

from harness import (
    PATIENCE,
    RunningHub,
    duration,
    eventually,
    folder,
    free_port,
    new_customer,
    promptly,
)
from penstockd.node.postgres import EmbeddedPostgres
from penstockd.node.sockets import sockets_folder
from penstockd.output import PROGRESS

pytestmark = pytest.mark.lane("faults/own_hub")


def family(hub: RunningHub) -> list[psutil.Process]:
    """All processes of a running hub, the supervisor first."""
    [supervisor] = hub.processes("supervisor")
    return [supervisor, *supervisor.children(recursive=True)]


def all_gone(processes: list[psutil.Process], seconds: float = PATIENCE) -> None:
    _, alive = psutil.wait_procs(processes, seconds)
    assert alive == []


def create(hub: RunningHub) -> str:
    """A new customer; its path."""
    record = new_customer()
    reply = hub.request("POST", "/v1/customers", consumer="admin", json_body=record)
    assert reply.status == 200, reply.text
    return f"/v1/customers/{record['customerId']}"


#: A name under which the hub issues tokens after its restart.
ISSUER = "https://hub.example.com"


def check_issuer(hub: RunningHub, before: str) -> None:
    """Check that the hub issues tokens under ISSUER, and that one under its earlier name is valid,
    also for a call whose body states no length: the sidecar asks the hub about that one."""
    assert jwt.decode(before, options={"verify_signature": False})["iss"] == hub.url
    hub.tokens.clear()
    metadata = hub.request("GET", "/.well-known/oauth-authorization-server").json()
    now = jwt.decode(hub.token("admin"), options={"verify_signature": False})["iss"]
    assert (metadata["issuer"], now) == (ISSUER, ISSUER)
    bearer = {"authorization": f"Bearer {before}", "content-type": "application/json"}
    assert hub.request("GET", "/v1/customers?page_size=1", headers=bearer).status == 200
    body = json.dumps(new_customer()).encode()
    reply = hub.request("POST", "/v1/customers", headers=bearer, body=iter([body]))
    assert reply.status == 200, reply.text


@contextlib.contextmanager
def in_foreground(hub: RunningHub, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
    """``penstock up`` as at a terminal, with more settings; ready when the block begins."""
    with (hub.data.parent / "console").open("wb") as console:
        process = subprocess.Popen(
            [sys.executable, "-m", "penstock.client.cli", "up", "--demo", "--customers=20"],
            env={**hub.env(), **settings},
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
            start_new_session=True,
        )
        try:
            eventually(lambda: is_ready(hub, process))
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(PATIENCE)


def is_ready(hub: RunningHub, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, (hub.data.parent / "console").read_text()
    file = hub.data / "ready"
    return file.exists() and file.read_text() == str(process.pid)


def test_a_killed_supervisor_leaves_no_process_and_the_next_start_finds_all_data(
    own_hub: RunningHub,
) -> None:
    kept, gone = create(own_hub), create(own_hub)
    demo = own_hub.get("/v1/customers", page_size=1).json()["customers"][0]
    deleted = f"/v1/customers/{demo['customerId']}"
    for path in (gone, deleted):
        assert own_hub.request("DELETE", path, consumer="admin").status == 200
    consumers, head, token = own_hub.consumers, own_hub.head(), own_hub.token("admin")
    processes = family(own_hub)
    assert len(processes) > 7
    own_hub.kill("supervisor")
    all_gone(processes)
    began = time.monotonic()
    with in_foreground(own_hub, PENSTOCK_ISSUER=ISSUER) as process:
        print(f"a start after kill -9 took {time.monotonic() - began:.1f} s")
        assert own_hub.get(kept).status == 200
        # Deleted records stay deleted: the demo is created once, and its credentials stay.
        assert (own_hub.get(gone).status, own_hub.get(deleted).status) == (404, 404)
        assert own_hub.consumers == consumers
        assert own_hub.head() == head
        check_issuer(own_hub, token)
        processes = family(own_hub)
        os.killpg(process.pid, signal.SIGINT)  # Ctrl-C reaches the whole group of the terminal
        assert process.wait(PATIENCE) == 0
        all_gone(processes)
    console = (own_hub.data.parent / "console").read_text()
    assert "Traceback" not in console
    # The start prints each step, and then that the hub is ready.
    told = [
        "starting PostgreSQL",
        "migrating the tables",
        "the keeper and Envoy",
        "Penstock is ready",
    ]
    places = [console.index(text) for text in told]
    assert places == sorted(places), console
    assert f"Penstock is ready: {own_hub.url}" in console
    assert console[: places[0]].endswith(PROGRESS), console
    assert not (own_hub.data / "ready").exists()


def runs_postgres(parent: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return any("-D" in child.cmdline() for child in parent.children())
    return False


def test_a_signal_amid_the_start_ends_everything() -> None:
    with folder() as data:
        hub = RunningHub(data / "hub")
        process = subprocess.Popen(
            [sys.executable, "-m", "penstock.client.cli", "up"],
            env=hub.env(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        parent = psutil.Process(process.pid)
        eventually(lambda: runs_postgres(parent))
        children = parent.children(recursive=True)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, output.decode()
        assert b"Traceback" not in output
        all_gone(children)
        assert not (hub.data / "ready").exists()


def refused(hub: RunningHub, *arguments: str, code: int = 1, **environment: str) -> str:
    """The error of a start that fails: one line, an exit code, no traceback, nothing left
    behind."""
    done = hub.command("up", *arguments, check=False, input=None, **environment)
    output = (done.stdout + done.stderr).decode()
    assert done.returncode == code, output
    assert "Traceback" not in output
    lines = [line for line in output.splitlines() if not line.startswith(("{", PROGRESS))]
    assert len(lines) == 1, output
    assert lines[0].startswith("penstock: ")
    assert not (hub.data / "ready").exists() or hub.processes("supervisor")
    return lines[0]


@pytest.fixture
def fresh() -> Iterator[RunningHub]:
    """A hub that has never been started."""
    with folder() as data:
        yield RunningHub(data / "hub", environment={"PENSTOCK_WORKERS": "1"})


def test_a_port_in_use(fresh: RunningHub) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", fresh.port))
        taken.listen()
        said = refused(fresh)
        assert f"cannot listen on 127.0.0.1:{fresh.port}: Address already in use" in said
        assert "PENSTOCK_PORT" in said
        # Detached, the caller gets the reason, too.
        done = fresh.command("up", "--detach", check=False)
        assert done.returncode == 1
        assert f"cannot listen on 127.0.0.1:{fresh.port}" in done.stderr.decode()
        assert "Traceback" not in done.stderr.decode()


def test_two_hubs_on_one_folder(own_hub: RunningHub) -> None:
    other = RunningHub(own_hub.data)
    said = refused(other)
    assert f"Penstock runs on {own_hub.data} already" in said
    assert str(own_hub.processes("supervisor")[0].pid) in said
    assert own_hub.get("/v1/customers", page_size=1).status == 200
    # The refused start does not make the running hub look stopped.
    assert (own_hub.data / "ready").exists()


def test_a_data_folder_that_cannot_be_written() -> None:
    with folder() as data:
        file = data / "file"
        file.write_text("")
        said = refused(RunningHub(file, secret=""))
        assert said == f"penstock: the data folder {file} cannot be used: it is not a folder"
        assert str(file / "below") in refused(RunningHub(file / "below", secret=""), "--detach")
    assert "/proc/none" in refused(RunningHub(Path("/proc/none"), secret=""))


def test_a_database_that_cannot_be_reached(fresh: RunningHub) -> None:
    dead = f"postgresql://penstock:secret@127.0.0.1:{free_port()}/penstock"
    said = ""

    def attempt() -> None:
        nonlocal said
        said = refused(fresh, PENSTOCK_DATABASE_URL=dead)

    promptly(15, lambda: duration(attempt))
    assert said.startswith("penstock: the database at 127.0.0.1:")
    assert "cannot be reached: Connect call failed" in said
    assert "secret" not in said
    assert not (fresh.data / "postgres").exists()


def test_a_database_url_that_is_none(fresh: RunningHub) -> None:
    for url in ("mysql://x/y", "postgresql://h:notaport/d"):
        said = refused(fresh, code=2, PENSTOCK_DATABASE_URL=url)
        assert "PENSTOCK_DATABASE_URL" in said
        assert url not in said


class Theirs:
    """A PostgreSQL server of the user's own: two roles with passwords, and a database of the
    first's."""

    def __init__(self, dsn: str, socket: Path) -> None:
        self.dsn = dsn
        self._socket = socket

    def url(self, user: str, password: str, database: str) -> str:
        return f"postgresql://{user}:{password}@/{database}?host={self._socket}&port=5432"


@pytest.fixture(scope="module")
def theirs() -> Iterator[Theirs]:
    with folder() as data, asyncio.Runner() as runner:
        postgres = EmbeddedPostgres(data, sockets_folder(data))
        runner.run(postgres.start())
        try:
            runner.run(ask_for_passwords(postgres))
            yield Theirs(postgres.dsn, postgres.socket)
        finally:
            runner.run(postgres.stop())


async def ask_for_passwords(postgres: EmbeddedPostgres) -> None:
    rules = postgres.cluster / "pg_hba.conf"
    rules.write_text("local all penstock trust\nlocal all all scram-sha-256\n")
    connection = await asyncpg.connect(postgres.dsn)
    try:
        await connection.execute("CREATE ROLE app LOGIN PASSWORD 'right'")
        await connection.execute("CREATE ROLE guest LOGIN PASSWORD 'right'")
        await connection.execute("CREATE DATABASE company OWNER app")
        await connection.execute("SELECT pg_reload_conf()")
    finally:
        await connection.close()


@pytest.mark.parametrize(
    ("user", "password", "database", "reason"),
    [
        ("app", "wrong", "company", 'password authentication failed for user "app"'),
        ("app", "right", "none", 'database "none" does not exist'),
        ("guest", "right", "company", "permission denied for database company"),
    ],
)
def test_a_database_that_lets_us_not_in(
    fresh: RunningHub, theirs: Theirs, user: str, password: str, database: str, reason: str
) -> None:
    url = theirs.url(user, password, database)
    assert reason in refused(fresh, PENSTOCK_DATABASE_URL=url)


def test_an_external_database_from_end_to_end(fresh: RunningHub, theirs: Theirs) -> None:
    fresh.environment["PENSTOCK_DATABASE_URL"] = theirs.url("app", "right", "company")
    fresh.customers = 20
    fresh.start()
    try:
        path = create(fresh)
        assert fresh.get(path).status == 200
        assert fresh.get("/v1/customers:export", format="CSV").text.count("\n") >= 21
        assert not (fresh.data / "postgres").exists()
        assert fresh.processes("postgres") == []
        # The password appears in no command line and no log.
        for process in family(fresh):
            with contextlib.suppress(psutil.NoSuchProcess):  # sessions of the database come and go
                assert "right" not in "".join(process.cmdline())
        logs = [*fresh.data.glob("log/*.log"), fresh.data / "penstock.log"]
        assert all("right@" not in log.read_text() for log in logs)
    finally:
        fresh.stop()
    with folder() as data:
        other = RunningHub(data / "other", secret="", environment=dict(fresh.environment))
        said = refused(other, "--demo")
        assert "which is not known here: set PENSTOCK_SECRET or PENSTOCK_SECOND_SECRET" in said
