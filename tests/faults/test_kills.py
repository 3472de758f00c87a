"""kill -9 of each process, the ends that are in order, and what a second start finds."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from harness import RunningHub, eventually, folder, new_customer


def family(hub: RunningHub) -> list[psutil.Process]:
    """All processes of a running hub, the supervisor first."""
    [supervisor] = hub.processes("supervisor")
    return [supervisor, *supervisor.children(recursive=True)]


def all_gone(processes: list[psutil.Process], seconds: float = 20.0) -> None:
    _, alive = psutil.wait_procs(processes, seconds)
    assert alive == []


def create(hub: RunningHub) -> str:
    """A new customer; its path."""
    record = new_customer()
    reply = hub.request("POST", "/v1/customers", consumer="admin", json_body=record)
    assert reply.status == 200, reply.text
    return f"/v1/customers/{record['customerId']}"


@pytest.mark.parametrize("kind", ["worker", "keeper", "envoy", "postgres", "backend", "guard"])
def test_a_killed_process_comes_back(own_hub: RunningHub, kind: str) -> None:
    path = create(own_hub)
    before = own_hub.processes(kind)
    own_hub.kill(kind)
    # Only calls that fail may be repeated at once; what was there is there.
    eventually(lambda: own_hub.get(path).status == 200, 10)

    def back() -> bool:
        now = own_hub.processes(kind)
        return len(now) >= len(before) and before[0] not in now

    eventually(back, 10)
    eventually(lambda: create(own_hub), 10)
    head = own_hub.head()
    create(own_hub)
    eventually(lambda: own_hub.head() == head + 1)


def test_the_log_is_numbered_without_any_worker_s_help(own_hub: RunningHub) -> None:
    """What a killed worker committed and did not number, the keeper numbers."""
    head = own_hub.head()
    own_hub.sql(
        "WITH c AS (INSERT INTO hub.change (ordinal, dataset, key, operation)"
        " VALUES (0, 'customers', 'x', 3)) INSERT INTO hub.pending (row_count) VALUES (1)"
    )
    assert own_hub.head() == head + 1


def test_a_killed_supervisor_leaves_nothing_and_the_next_start_keeps_the_data(
    own_hub: RunningHub,
) -> None:
    path = create(own_hub)
    consumers = own_hub.consumers
    loaded = own_hub.get("/v1/customers", page_size=1000).json()
    children = family(own_hub)
    own_hub.kill("supervisor")
    all_gone(children)
    began = time.monotonic()
    own_hub.start()
    print(f"a start after kill -9 took {time.monotonic() - began:.1f} s")
    assert own_hub.get(path).status == 200
    assert own_hub.consumers == consumers
    assert own_hub.get("/v1/customers", page_size=1000).json() == loaded


def test_a_start_right_after_a_killed_supervisor_waits_for_its_end(own_hub: RunningHub) -> None:
    path = create(own_hub)
    children = family(own_hub)
    own_hub.kill("supervisor")
    own_hub.start()
    all_gone(children)
    assert own_hub.get(path).status == 200


def test_a_second_start_keeps_the_data_and_makes_no_second_demo(own_hub: RunningHub) -> None:
    path, gone = create(own_hub), create(own_hub)
    demo = own_hub.get("/v1/customers", page_size=1).json()["customers"][0]
    deleted = f"/v1/customers/{demo['customerId']}"
    assert own_hub.request("DELETE", deleted, consumer="admin").status == 200
    assert own_hub.request("DELETE", gone, consumer="admin").status == 200
    consumers, head = own_hub.consumers, own_hub.head()
    children = family(own_hub)
    own_hub.stop()
    all_gone(children)
    began = time.monotonic()
    own_hub.start()
    print(f"a second start took {time.monotonic() - began:.1f} s")
    assert own_hub.consumers == consumers
    assert own_hub.get(path).status == 200
    # What was deleted stays deleted, and nothing was written by the start.
    assert (own_hub.get(gone).status, own_hub.get(deleted).status) == (404, 404)
    assert own_hub.head() == head


@contextlib.contextmanager
def in_foreground(hub: RunningHub) -> Iterator[subprocess.Popen[bytes]]:
    """``penstock up`` as at a terminal; ready when the block begins."""
    with (hub.data.parent / "console").open("wb") as console:
        process = subprocess.Popen(
            [sys.executable, "-m", "penstock.client.cli", "up", "--demo", "--customers=20"],
            env=hub.env(),
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
            start_new_session=True,
        )
        try:
            eventually(lambda: ready(hub, process), 120)
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait(60)


def ready(hub: RunningHub, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, (hub.data.parent / "console").read_text()
    file = hub.data / "ready"
    return file.exists() and file.read_text() == str(process.pid)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_the_foreground_ends_everything(
    own_hub: RunningHub, signum: signal.Signals
) -> None:
    own_hub.stop()
    with in_foreground(own_hub) as process:
        children = family(own_hub)
        assert len(children) > 6
        # Ctrl-C reaches the whole group of the terminal.
        os.killpg(process.pid, signum)
        assert process.wait(30) == 0
        all_gone(children)
    console = (own_hub.data.parent / "console").read_text()
    assert "Traceback" not in console
    assert f"Penstock is ready: {own_hub.url}" in console
    assert not (own_hub.data / "ready").exists()
    own_hub.start()


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
        eventually(lambda: runs_postgres(parent), 60)
        children = parent.children(recursive=True)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
        assert process.returncode == 0, output.decode()
        assert b"Traceback" not in output
        all_gone(children)
        assert not Path(hub.data / "ready").exists()


def runs_postgres(parent: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return any("-D" in child.cmdline() for child in parent.children())
    return False
