"""A hanging process is taken out of rotation and restarted; a full log ends no process."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from harness import RunningHub, eventually, folder, new_customer, promptly, signal_processes, timed

pytestmark = pytest.mark.lane("faults/own_hub")

#: Seconds after which Envoy sends no calls to a worker that hangs.
OUT_WITHIN = 5.0


def has_ended(process: psutil.Process) -> bool:
    """Whether a process has ended, whether or not its parent has noticed."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def end_frozen(hub: RunningHub, kind: str) -> float:
    """Freeze the first process of a kind; returns the seconds until Envoy noticed, after another
    process has taken its place."""
    before = hub.processes(kind)
    victim = before[0]
    eventually(lambda: hub.healthy_workers() == 2)
    victim.send_signal(signal.SIGSTOP)
    try:
        noticed = 0.0
        if kind == "worker":
            noticed = timed(lambda: hub.healthy_workers() == 1)
            assert hub.insist("GET", "/v1/datasets", consumer="admin").status == 200
        eventually(lambda: has_ended(victim))
    finally:
        signal_processes([victim], signal.SIGCONT)
    eventually(lambda: len(hub.processes(kind)) == len(before))
    others = [p for p in before if p != victim]
    assert all(p in hub.processes(kind) for p in others)  # one at a time, and none without need
    eventually(lambda: hub.healthy_workers() == 2)
    return noticed


@pytest.mark.slow
def test_a_worker_or_keeper_that_hangs_is_started_again(own_hub: RunningHub) -> None:
    taken = promptly(OUT_WITHIN, lambda: end_frozen(own_hub, "worker"))
    print(f"out of rotation after {taken:.2f} s")
    end_frozen(own_hub, "keeper")


def start_on_full_streams(hub: RunningHub) -> subprocess.Popen[bytes]:
    """Start the demo with a stdout and stderr that are full."""
    with Path("/dev/full").open("wb") as full:
        process = subprocess.Popen(
            [sys.executable, "-m", "penstock.client.cli", "up", "--demo", "--customers=20"],
            env=hub.env(),
            stdout=full,
            stderr=full,
        )
    try:
        eventually(lambda: (hub.data / "ready").exists() or process.poll() is not None)
        assert process.returncode is None, "the hub ended"
    except BaseException:
        process.kill()
        process.wait()
        raise
    return process


class Logs:
    """The folder of the logs, on a full disk: a small volume, or files that are a full device where
    none can be mounted."""

    NAMES = ("worker-0", "worker-1", "keeper", "envoy", "access", "postgres")

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True)
        self._path, self._filler = path, path / "filler"
        mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(path)]
        self.is_volume = os.geteuid() == 0 and subprocess.run(mount, check=False).returncode == 0
        if self.is_volume:
            path.chmod(0o777)
            self.fill()
        else:
            for name in self.NAMES:
                self.file(name).symlink_to("/dev/full")

    def file(self, name: str) -> Path:
        """The log of a process."""
        return self._path / f"{name}.log"

    def fill(self) -> None:
        """Fill the disk."""
        with self._filler.open("ab", buffering=0) as file, contextlib.suppress(OSError):
            while file.write(bytes(4096)):
                pass

    def make_room(self) -> None:
        """Free the disk."""
        self._filler.unlink()

    def close(self) -> None:
        """Remove the volume."""
        if self.is_volume:
            subprocess.run(["umount", "--lazy", str(self._path)], check=True)


@pytest.mark.slow
def test_full_logs_end_no_process() -> None:
    """No log file can be written, nor can the supervisor's own output."""
    with folder() as data:
        hub = RunningHub(data / "hub", customers=20, environment={"PENSTOCK_LOG_LEVEL": "DEBUG"})
        logs = Logs(hub.data / "log")
        hub.environment["PENSTOCK_WORKERS"] = "2"
        try:
            process = start_on_full_streams(hub)
            before = {kind: hub.processes(kind) for kind in KINDS}
            end_sessions(hub)
            eventually(lambda: written(hub))
            hub.head()
            assert {kind: hub.processes(kind) for kind in KINDS} == before
            # New processes start on the full disk.
            victims = [hub.processes(kind)[0] for kind in KINDS[1:]]
            signal_processes(victims, signal.SIGKILL)
            eventually(lambda: not any(v.is_running() for v in victims))
            eventually(lambda: all(len(hub.processes(k)) == len(before[k]) for k in KINDS))
            eventually(lambda: written(hub))
            hub.head()
            assert hub.processes("supervisor") == before["supervisor"]
            if logs.is_volume:
                logs_go_on(hub, logs)
            hub.stop()
            assert process.wait() == 0
        finally:
            hub.stop()
            logs.close()


KINDS = ("supervisor", "worker", "keeper", "envoy")


def end_sessions(hub: RunningHub) -> None:
    """End the sessions of workers and keeper, which they log."""
    hub.sql(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE pid <> pg_backend_pid() AND usename IS NOT NULL"
    )


def written(hub: RunningHub) -> bool:
    """Whether the hub takes a write."""
    key = {"x-api-key": hub.api_key}
    reply = hub.request("POST", "/v1/customers", headers=key, json_body=new_customer())
    return reply.status == 200


def logs_go_on(hub: RunningHub, logs: Logs) -> None:
    """Once the disk has space, every process logs again and counts its lost lines. The console
    stays full, so its lines stay lost."""
    logs.make_room()
    end_sessions(hub)
    workers = [logs.file(name) for name in ("worker-0", "worker-1")]
    files = (*workers, logs.file("keeper"))
    eventually(lambda: all(file.stat().st_size for file in files))
    eventually(lambda: any('"event":"log_lines_lost"' in file.read_text() for file in workers))
    eventually(lambda: written(hub) and logs.file("access").stat().st_size)
