"""The supervisor, as a process of its own: it restarts what dies, and its end ends its children."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import urllib.request
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import asyncpg
import psutil
import pytest

from harness import PATIENCE, eventually, free_port
from penstockd.node.errors import AlreadyRunning
from penstockd.node.lock import find_supervisor, hold_folder, stop_supervisor

pytestmark = pytest.mark.lane(priority=7)

PROGRAM = Path(__file__).with_name("run_node.py")


class Supervisor:
    """A running supervisor and its events."""

    def __init__(self, data: Path, port: int, process: asyncio.subprocess.Process) -> None:
        self.data = data
        self.port = port
        self.process = process
        self.errors = b""

    async def event(self, name: str) -> dict[str, Any]:
        """Wait for an event; fails if another kind of end comes first."""
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE):
            while line := await self.process.stdout.readline():
                if not line.startswith(b"{"):
                    continue
                told: dict[str, Any] = json.loads(line)
                if told["event"] == name:
                    return told
                assert told["event"] != "failed", told
        raise AssertionError(f"ended without '{name}'")

    async def family(self) -> dict[str, psutil.Process]:
        """The children by kind, without PostgreSQL's backends."""
        found: dict[str, psutil.Process] = {}
        for child in psutil.Process(self.process.pid).children():
            try:
                command = " ".join(child.cmdline())
            except psutil.NoSuchProcess:  # it has just ended
                continue
            for mark in ("guard.py", "worker-0", "worker-1", "signal.pause", "bin/envoy"):
                if mark in command:
                    found[mark] = child
            if "bin/postgres" in command:
                found["postgres"] = child
        return found

    async def serving(self) -> None:
        async with asyncio.timeout(PATIENCE):
            while True:
                if await asyncio.to_thread(answers, self.port):
                    return
                await asyncio.sleep(0.05)


def answers(port: int) -> bool:
    url = f"http://127.0.0.1:{port}/v1/customers/c1"
    try:
        with urllib.request.urlopen(url, timeout=5) as reply:
            return bool(reply.status == 200)
    except OSError:
        return False


Start = Callable[..., Any]


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[Start]:
    started: list[Supervisor] = []

    async def start_one(
        *worker: str, data: Path = tmp_path / "data", port: int = 0, url: str | None = None
    ) -> Supervisor:
        port = port or free_port()
        environment = os.environ | ({"TEST_DATABASE_URL": url} if url else {})
        with (tmp_path / "console").open("ab") as console:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, str(PROGRAM), str(data), str(port), *worker),
                stdout=asyncio.subprocess.PIPE,
                stderr=console,
                env=environment,
            )
        one = Supervisor(data, port, process)
        started.append(one)
        return one

    yield start_one
    for one in started:
        if one.process.returncode is None:
            family = await one.family()
            one.process.send_signal(signal.SIGTERM)
            await one.process.wait()
            await gone(list(family.values()))


async def gone(processes: list[psutil.Process]) -> None:
    _, alive = await asyncio.to_thread(psutil.wait_procs, processes, PATIENCE)
    assert alive == []


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
async def test_it_starts_everything_and_ends_everything(
    start: Start, signum: signal.Signals
) -> None:
    node = await start()
    url = (await node.event("prepare"))["url"]
    connection = await asyncpg.connect(url)
    await connection.close()
    await node.event("ready")
    assert await asyncio.to_thread(answers, node.port)
    family = await node.family()
    assert set(family) == {
        "guard.py",
        "worker-0",
        "worker-1",
        "signal.pause",
        "bin/envoy",
        "postgres",
    }
    assert family["worker-0"].environ()["DATABASE_URL"] == url
    node.process.send_signal(signum)
    await node.event("ended")
    assert await node.process.wait() == 0
    await gone(list(family.values()))


async def test_what_is_killed_comes_back(start: Start) -> None:
    node = await start()
    url = (await node.event("prepare"))["url"]
    await node.event("ready")
    before = await node.family()
    for name in ("worker-0", "worker-1", "bin/envoy", "signal.pause", "guard.py", "postgres"):
        before[name].kill()
        await gone([before[name]])
    async with asyncio.timeout(PATIENCE):
        while True:
            after = await node.family()
            if set(after) == set(before) and all(after[n].pid != before[n].pid for n in before):
                break
            await asyncio.sleep(0.05)
    await node.serving()
    async with asyncio.timeout(PATIENCE):
        while True:
            try:
                connection = await asyncpg.connect(url)
                break
            except (OSError, asyncpg.PostgresError):
                await asyncio.sleep(0.05)
    await connection.close()
    assert node.process.returncode is None
    # The new guard knows the new children.
    node.process.kill()
    await node.process.wait()
    await gone(list(after.values()))


async def test_a_killed_supervisor_takes_its_family_along_and_can_start_again(
    start: Start,
) -> None:
    first = await start()
    await first.event("ready")
    family = await first.family()
    first.process.kill()
    await first.process.wait()
    # At once, while the guard is still working.
    second = await start(port=first.port)
    await second.event("ready")
    assert await asyncio.to_thread(answers, second.port)
    await gone(list(family.values()))


async def test_one_folder_has_one_supervisor(start: Start) -> None:
    node = await start()
    await node.event("prepare")
    second = await start()
    told = await failure(second)
    assert told["error"] == "AlreadyRunning"
    assert str(node.process.pid) in told["text"]
    await node.event("ready")
    assert find_supervisor(node.data) == node.process.pid
    assert await asyncio.to_thread(stop_supervisor, node.data)
    assert await node.process.wait() == 0
    assert find_supervisor(node.data) is None
    assert not await asyncio.to_thread(stop_supervisor, node.data)


async def test_a_worker_that_never_starts_fails_the_start(start: Start, tmp_path: Path) -> None:
    broken = [sys.executable, "-c", "raise SystemExit('no such thing')"]
    told = await failure(await start(*broken))
    assert told["error"] == "ProcessFailed"
    assert "worker-" in told["text"]
    # The console shows the worker's output.
    console = tmp_path / "console"
    await asyncio.to_thread(eventually, lambda: "no such thing" in console.read_text())


async def test_a_port_in_use_fails_before_anything_starts(start: Start) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        node = await start(port=taken.getsockname()[1])
        told = await failure(node)
    assert told["error"] == "PortInUse"
    assert not (node.data / "postgres").exists()


async def test_a_folder_that_cannot_be_written(start: Start, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    told = await failure(await start(data=tmp_path / "file" / "data"))
    assert told["error"] == "FolderUnusable"


async def test_the_users_database_needs_no_other(start: Start) -> None:
    node = await start(url="postgresql://elsewhere/penstock")
    assert (await node.event("prepare"))["url"] == "postgresql://elsewhere/penstock"
    await node.event("ready")
    assert "postgres" not in await node.family()


async def test_it_can_be_ended_while_it_starts(start: Start) -> None:
    node = await start(sys.executable, "-c", "import time; time.sleep(600)")
    await node.event("prepare")
    async with asyncio.timeout(PATIENCE):
        while True:
            family = await node.family()
            if len(family) == 6:
                break
            await asyncio.sleep(0.05)
    node.process.terminate()
    await node.event("ended")
    await gone(list(family.values()))


def test_a_lock_is_held_once(tmp_path: Path) -> None:
    with (
        hold_folder(tmp_path),
        pytest.raises(AlreadyRunning, match=str(os.getpid())),
        hold_folder(tmp_path),
    ):
        pass
    with hold_folder(tmp_path):
        pass


async def failure(node: Supervisor) -> dict[str, Any]:
    """The reason why the start failed."""
    assert node.process.stdout is not None
    async with asyncio.timeout(PATIENCE):
        output = await node.process.stdout.read()
        assert await node.process.wait() == 1
    told: dict[str, Any] = json.loads(output.splitlines()[-1])
    assert told["event"] == "failed"
    return told
