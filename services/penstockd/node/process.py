"""A child process: started in its own session, its output in a log file, its end awaitable.

It works under every event loop (uvloop's cannot drop privileges) and needs no child watcher: one
daemon thread waits for each child.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import structlog

from penstockd.node.guard import ChildGuard

LOG_LIMIT = 32 * 1024 * 1024
"""Bytes at which a log file is set aside as ``<name>.1`` when its process is next started."""
ROTATION = threading.Lock()
"""Held while a log is set aside, by its next process or by ``journal.follow_log``: of two at once,
the second would replace what the first has kept."""


DETACHED_LOG = "penstock.log"
"""The file in the data folder that a detached supervisor writes to."""

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Account:
    """The unprivileged system user that a child runs as when the supervisor is root."""

    name: str
    uid: int
    gid: int


class Process:
    """A running child. ``name`` is for logs; ``pid`` stays valid until ``wait`` returns."""

    def __init__(self, name: str, popen: subprocess.Popen[bytes], guard: ChildGuard | None) -> None:
        self.name = name
        self.pid = popen.pid
        self._popen = popen
        self._guard = guard
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        threading.Thread(target=self._reap, name=f"wait-{name}", daemon=True).start()

    @property
    def code(self) -> int | None:
        """The exit code, negative for a signal; None while the process runs."""
        return self._popen.returncode

    async def wait(self) -> int:
        """Wait for the end and return the exit code (negative: the signal that ended it)."""
        await self._ended.wait()
        code = self._popen.returncode
        assert code is not None
        return code

    def send(self, signum: signal.Signals) -> None:
        """Send a signal; nothing happens if the process has ended."""
        with contextlib.suppress(ProcessLookupError):
            self._popen.send_signal(signum)

    async def stop(self, signum: signal.Signals, seconds: float) -> int:
        """Send ``signum``, wait up to ``seconds``, then SIGKILL. Returns the exit code."""
        self.send(signum)
        try:
            return await asyncio.wait_for(self.wait(), seconds)
        except TimeoutError:
            self.send(signal.SIGKILL)
            return await self.wait()

    def _reap(self) -> None:
        self._popen.wait()
        if self._guard is not None:
            self._guard.remove(self.pid)
        # If the child outlived the loop, the loop is closed and nobody waits.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._ended.set)


def spawn_process(
    name: str,
    argv: Sequence[str | Path],
    *,
    log: Path,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    account: Account | None = None,
    guard: ChildGuard | None = None,
    last_signal: signal.Signals = signal.SIGTERM,
    descriptors: Sequence[int] = (),
) -> Process:
    """Start ``argv`` with stdout and stderr appended to ``log`` and no standard input.

    The child gets a session of its own, so that Ctrl-C reaches only the supervisor, which then ends
    its children in order. With a ``guard``, the child gets ``last_signal`` if the supervisor itself
    dies. It inherits ``descriptors``. If the log cannot be opened, the child runs without one.
    Raises OSError if the program cannot be started.
    """
    with _open_log(log) as output:
        popen = subprocess.Popen(
            [str(arg) for arg in argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env=env,
            start_new_session=True,
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
            pass_fds=descriptors,
        )
    if guard is not None:
        guard.add(popen.pid, last_signal)
    return Process(name, popen, guard)


def _open_log(log: Path) -> BinaryIO:
    """The log file, opened to append; the null device if it cannot be opened."""
    try:
        set_aside(log)
        return log.open("ab")
    except OSError as error:
        _log.warning("log_not_opened", path=str(log), error=str(error))
        return open(os.devnull, "ab")


def set_aside(log: Path) -> None:
    """Rename a log that has reached LOG_LIMIT to ``<name>.1``, replacing the earlier one."""
    with ROTATION:
        if log.exists() and log.stat().st_size >= LOG_LIMIT:
            os.replace(log, log.with_name(log.name + ".1"))
