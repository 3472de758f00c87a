"""A process that hangs is taken out of rotation and started again; a full log ends nobody."""

from __future__ import annotations

import http.client
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from harness import RunningHub, eventually, folder, new_customer, promptly, timed
from penstockd.node.sockets import sockets_folder

#: Seconds after which Envoy sends a worker that hangs no calls.
OUT_WITHIN = 5.0


def healthy_workers(hub: RunningHub) -> int:
    """As Envoy counts them."""
    connection = http.client.HTTPConnection("envoy")
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(sockets_folder(hub.data) / "admin.sock"))
    connection.request("GET", "/stats?filter=cluster.hub.membership_healthy")
    text = connection.getresponse().read().decode()
    connection.close()
    return int(text.rpartition(":")[2])


def end_frozen(hub: RunningHub, kind: str) -> float:
    """Freeze the first process of a kind; returns the seconds until Envoy has noticed, and waits
    until another has taken its place."""
    before = hub.processes(kind)
    victim = before[0]
    eventually(lambda: healthy_workers(hub) == 2)
    victim.send_signal(signal.SIGSTOP)
    try:
        noticed = 0.0
        if kind == "worker":
            noticed = timed(lambda: healthy_workers(hub) == 1)
            assert hub.get("/v1/datasets").status == 200
        eventually(lambda: not victim.is_running() or victim.status() == psutil.STATUS_ZOMBIE)
    finally:
        if victim.is_running():
            victim.send_signal(signal.SIGCONT)
    eventually(lambda: len(hub.processes(kind)) == len(before))
    others = [p for p in before if p != victim]
    assert all(p in hub.processes(kind) for p in others)  # one at a time, and none for nothing
    eventually(lambda: healthy_workers(hub) == 2)
    return noticed


@pytest.mark.slow
def test_a_worker_or_keeper_that_hangs_is_started_again(own_hub: RunningHub) -> None:
    taken = promptly(OUT_WITHIN, lambda: end_frozen(own_hub, "worker"))
    print(f"out of rotation after {taken:.2f} s")
    end_frozen(own_hub, "keeper")


def start_on_full_streams(hub: RunningHub) -> subprocess.Popen[bytes]:
    """Start the demo with a stdout and stderr that have no room."""
    with Path("/dev/full").open("wb") as full:
        process = subprocess.Popen(
            [sys.executable, "-m", "penstock.client.cli", "up", "--demo", "--customers=20"],
            env=hub.env(),
            stdout=full,
            stderr=full,
        )
    eventually((hub.data / "ready").exists)
    return process


def test_full_logs_end_no_process() -> None:
    """Every log file, and the supervisor's own, is a device without room."""
    with folder() as data:
        hub = RunningHub(data / "hub", customers=20, environment={"PENSTOCK_LOG_LEVEL": "DEBUG"})
        logs = hub.data / "log"
        logs.mkdir(parents=True)
        for name in ("worker-0", "worker-1", "keeper", "envoy", "access", "postgres"):
            (logs / f"{name}.log").symlink_to("/dev/full")
        hub.environment["PENSTOCK_WORKERS"] = "2"
        try:
            process = start_on_full_streams(hub)
            kinds = ("supervisor", "worker", "keeper", "envoy")
            before = {kind: hub.processes(kind) for kind in kinds}
            key = {"x-api-key": hub.api_key}
            # The keeper is to log, too: its sessions end, and it says so.
            hub.sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE pid <> pg_backend_pid() AND usename IS NOT NULL"
            )

            def written() -> bool:
                reply = hub.request("POST", "/v1/customers", headers=key, json_body=new_customer())
                return reply.status == 200

            eventually(written)
            hub.head()
            assert {kind: hub.processes(kind) for kind in kinds} == before
            hub.stop()
            assert process.wait() == 0
        finally:
            hub.stop()
