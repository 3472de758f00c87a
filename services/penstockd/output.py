"""Standard streams that survive a full disk.

A log line that cannot be written must not end the process that writes it. Every process replaces
its standard streams by these, so one mechanism guards every writer: the log, a library, ``print``,
a traceback. Lost lines are counted, and the count is logged when there is space again.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
import threading
from typing import Any

#: Begins a line for people about a step of the start; a detached start passes these lines on.
PROGRESS = "… "


def tell_progress(text: str) -> None:
    """Print the current step of a start on standard error."""
    print(f"{PROGRESS}{text}", file=sys.stderr, flush=True)


class GuardedOutput(io.TextIOBase):
    """A text stream on a file descriptor; text that cannot be written is dropped and counted."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._mutex = threading.RLock()
        self._lost = 0
        self._broken_off = False

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Always UTF-8, whatever the locale says."""
        return "utf-8"

    @property
    def lost(self) -> int:
        """Writes dropped since the last successful one."""
        return self._lost

    def writable(self) -> bool:
        """Always True."""
        return True

    def fileno(self) -> int:
        """The descriptor."""
        return self._descriptor

    def isatty(self) -> bool:
        """Whether the descriptor is a terminal."""
        try:
            return os.isatty(self._descriptor)
        except OSError:
            return False

    def write(self, text: str) -> int:
        """Write at once or drop the text; never raises on a full disk."""
        data = text.encode("utf-8", "backslashreplace")
        with self._mutex:
            if self._lost or self._broken_off:
                # End a line that broke off in the middle; the notice tells how many are missing.
                data = b"\n" * self._broken_off + self._notice() + data
            try:
                while data:
                    data = data[os.write(self._descriptor, data) :]
                    self._broken_off = bool(data)
            except (OSError, ValueError):
                self._lost += 1
            else:
                self._lost, self._broken_off = 0, False
        return len(text)

    def flush(self) -> None:
        """Do nothing: writes are not buffered."""

    def _notice(self) -> bytes:
        if not self._lost:
            return b""
        return b'{"event":"log_lines_lost","level":"warning","count":%d}\n' % self._lost


def guard_output() -> None:
    """From now on, no line that this process writes to stdout or stderr can raise an error."""
    for name in ("stdout", "stderr"):
        stream: Any = getattr(sys, name)
        if stream is None or isinstance(stream, GuardedOutput):
            continue
        try:
            descriptor = stream.fileno()
        except (OSError, ValueError):
            continue  # a test's own stream without a descriptor
        with contextlib.suppress(OSError):
            stream.flush()
        setattr(sys, name, GuardedOutput(descriptor))
