"""The log files of the processes: bounded in size, their warnings repeated on the console.

The processes write to their files directly, so that no line waits for the supervisor or is lost
with it; the supervisor reads the files as they grow.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import structlog

from penstockd.node.process import LOG_LIMIT

INTERVAL = 0.25
"""Seconds between two looks at a file."""

_log = structlog.get_logger(__name__)


def is_severe(line: str) -> bool:
    """Whether a line of the hub's own JSON log is a WARNING or worse.

    A line that is not JSON was not meant for the log (such as a traceback) and counts as severe.
    """
    level = level_of(line)
    return bool(line.strip()) if level is None else level in ("warning", "error", "critical")


def level_of(line: str) -> str | None:
    """The level of a JSON line in lower case; "" if it has none, None if it is not JSON."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return str(entry.get("level", "")).lower() if isinstance(entry, dict) else ""


def is_severe_postgres(line: str) -> bool:
    """Whether PostgreSQL reports trouble of its own; an ERROR is only about one statement."""
    return level_of(line) in ("fatal", "panic")


def is_severe_envoy(line: str) -> bool:
    """Whether Envoy reports an error."""
    return level_of(line) in ("error", "critical")


def never_severe(line: str) -> bool:
    """Always False: for files that are only bounded, never repeated."""
    return False


async def follow_log(
    name: str, path: Path, severe: Callable[[str], bool], console: TextIO | None = None
) -> None:
    """Repeat severe lines of ``path`` on the console (stderr) from now on, until cancelled.

    A file that has reached LOG_LIMIT is copied to ``<name>.1`` and emptied; a line written at that
    very moment may be lost. A file that cannot be read is logged once and tried again.
    """
    offset = _file_size(path)
    rest = b""
    told: int | None = None  # the errno of the failure that was logged last
    while True:
        try:
            data, offset = _read_file(path, offset)
            if offset >= LOG_LIMIT:
                await asyncio.to_thread(_empty_file, path)
                offset = 0
            told = None
        except OSError as error:
            data = b""
            if told is None or error.errno != told:
                _log.warning("log_not_followed", path=str(path), error=str(error))
            told = error.errno
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            text = line.decode(errors="replace")
            if severe(text):
                print(f"{name}: {text}", file=console or sys.stderr, flush=True)
        if not data:
            await asyncio.sleep(INTERVAL)


def _file_size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _empty_file(path: Path) -> None:
    """Keep a copy and empty the file, or only empty it if there is no room for the copy."""
    copy = path.with_name(path.name + ".1")
    try:
        shutil.copyfile(path, copy)
    except OSError as error:
        _log.warning("log_not_kept", path=str(copy), error=str(error))
        with contextlib.suppress(OSError):
            copy.unlink(missing_ok=True)  # half a copy takes up the space that is needed
    os.truncate(path, 0)


def _read_file(path: Path, offset: int) -> tuple[bytes, int]:
    try:
        with path.open("rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                return b"", 0  # a device or a pipe, which others read
            if status.st_size < offset:
                offset = 0  # the file was renamed and started again
            file.seek(offset)
            data = file.read(1 << 20)
    except FileNotFoundError:
        return b"", 0
    return data, offset + len(data)
