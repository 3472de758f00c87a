"""A watcher that ends the supervisor's children when the supervisor is killed.

A process that gets SIGKILL cannot tidy up, and PR_SET_PDEATHSIG exists on Linux only. So one small
process holds the reading end of a pipe: however the supervisor ends, the pipe then closes, and the
watcher ends the children that it knows. It works on Linux and macOS alike.

The file is also the watcher's program; it is run alone (``python -I -S guard.py``) and therefore
imports nothing but the standard library.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

PATIENCE = 10.0
"""Seconds the children get between their signal and SIGKILL."""


class ChildGuard:
    """The supervisor's side: tells the watcher which children exist. Safe to use from threads.

    With a ``lock`` file, the watcher holds it as long as it lives: a new guard waits (slightly
    longer than PATIENCE at most) until the watcher of a killed run has done its work. Raises
    OSError if the lock file cannot be written or is not released.
    """

    def __init__(self, lock: Path | None = None) -> None:
        self._mutex = threading.Lock()
        self._children: dict[int, signal.Signals] = {}
        self._closed = False
        self._lock_file = lock
        self._watcher = self._start()
        threading.Thread(target=self._attend, name="guard", daemon=True).start()

    @property
    def pid(self) -> int:
        """The watcher's process id."""
        return self._watcher.pid

    def add(self, pid: int, last_signal: signal.Signals) -> None:
        """Send ``last_signal`` to the child ``pid`` if this process dies from now on."""
        with self._mutex:
            self._children[pid] = last_signal
            self._tell(f"+{pid} {int(last_signal)}")

    def remove(self, pid: int) -> None:
        """Forget a child that has ended: its number may soon belong to another process."""
        with self._mutex:
            if self._children.pop(pid, None) is not None:
                self._tell(f"-{pid}")

    def close(self) -> None:
        """End the watcher. It first ends the children that it still knows, as if we had died."""
        with self._mutex:
            self._closed = True
            watcher = self._watcher
            assert watcher.stdin is not None
            watcher.stdin.close()
        watcher.wait()

    def _attend(self) -> None:
        """Replace a killed watcher with a new one that knows the same children."""
        while True:
            self._watcher.wait()
            with self._mutex:
                if self._closed:
                    return
                assert self._watcher.stdin is not None
                self._watcher.stdin.close()
                self._watcher = self._start()
                for pid, last_signal in self._children.items():
                    self._tell(f"+{pid} {int(last_signal)}")

    def _tell(self, line: str) -> None:
        if self._closed:
            return
        assert self._watcher.stdin is not None
        # A watcher that was killed is replaced in a moment and then learns everything again.
        with contextlib.suppress(BrokenPipeError):
            self._watcher.stdin.write(line.encode() + b"\n")

    def _start(self) -> subprocess.Popen[bytes]:
        lock = _lock_file(self._lock_file) if self._lock_file is not None else None
        try:
            return subprocess.Popen(
                [sys.executable, "-I", "-S", __file__],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                bufsize=0,
                cwd="/",
                start_new_session=True,
                pass_fds=[] if lock is None else [lock],
            )
        finally:
            # The watcher keeps the lock through its own copy of the handle.
            if lock is not None:
                os.close(lock)


def _lock_file(path: Path) -> int:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + PATIENCE + 2
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return handle
        except BlockingIOError:
            if time.monotonic() > deadline:
                os.close(handle)
                raise
            time.sleep(0.05)


def watch_children() -> None:
    """The watcher's program: read names of children until the pipe ends, then end them."""
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_IGN)
    children: dict[int, int] = {}
    for line in sys.stdin:
        if line.startswith("+"):
            pid, signum_text = line[1:].split()
            children[int(pid)] = int(signum_text)
        else:
            children.pop(int(line[1:]), None)
    # Youngest first: processes that depend on PostgreSQL end before it.
    left = [pid for pid, signum_ in reversed(children.items()) if _send_signal(pid, signum_)]
    deadline = time.monotonic() + PATIENCE
    while left and time.monotonic() < deadline:
        time.sleep(0.05)
        left = [pid for pid in left if _send_signal(pid, 0)]
    for pid in left:
        _send_signal(pid, signal.SIGKILL)


def _send_signal(pid: int, signum: int) -> bool:
    try:
        os.kill(pid, signum)
    except OSError:
        return False
    return True


if __name__ == "__main__":
    watch_children()
