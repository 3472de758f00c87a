"""One supervisor per data folder, and the way to reach it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from penstockd.node.errors import AlreadyRunning, FolderUnusable, ProcessFailed
from penstockd.node.private import keep_files_private

_NAME = "penstock.pid"


@contextlib.contextmanager
def hold_folder(data: Path) -> Iterator[None]:
    """Hold ``data``, made if missing, for this process; the file contains our process id.

    Meanwhile this process and its children create files that only their owner can read. The kernel
    keeps the lock and releases it however we end. Raises FolderUnusable if the folder cannot be
    made or written, AlreadyRunning if another process holds it.
    """
    mask = None
    try:
        # PostgreSQL's own user can pass through root's folder; secrets in it have modes of their
        # own.
        data.mkdir(parents=True, exist_ok=True, mode=0o711 if os.geteuid() == 0 else 0o700)
        mask = keep_files_private(data)
        handle = os.open(data / _NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if mask is not None:
            os.umask(mask)
        raise FolderUnusable(f"cannot write in {data}: {error.strerror}") from error
    try:
        if not _take_lock(handle):
            raise AlreadyRunning(
                f"Penstock runs on {data} already, as process {_read_pid(handle)}. Stop it with "
                "'penstock down', or choose another PENSTOCK_DATA_DIR."
            )
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(handle)
        os.umask(mask)


def find_supervisor(data: Path) -> int | None:
    """The process id of the supervisor on ``data``, or None."""
    try:
        handle = os.open(data / _NAME, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        return None if _take_lock(handle) else _read_pid(handle)
    finally:
        os.close(handle)


def stop_supervisor(data: Path, seconds: float = 60.0) -> bool:
    """End the supervisor on ``data`` and wait until it is gone; False if there was none.

    Blocks. Raises ProcessFailed after ``seconds``, PermissionError if it belongs to another user.
    """
    pid = find_supervisor(data)
    if pid is None:
        return False
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + seconds
    while find_supervisor(data) == pid:
        if time.monotonic() > deadline:
            raise ProcessFailed(f"process {pid} does not end within {seconds:g} s")
        time.sleep(0.05)
    return True


def _take_lock(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read_pid(handle: int) -> int | None:
    text = os.pread(handle, 32, 0).split()
    return int(text[0]) if text else None
