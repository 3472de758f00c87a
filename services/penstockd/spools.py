"""Temporary files for uploads: they leave a reserve of the disk free, and report a full disk."""

from __future__ import annotations

import errno
import shutil
import tempfile
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from penstockd.errors import StorageFull

_FULL = "the hub's disk has no space for the file; nothing was written"


@dataclass(frozen=True, slots=True)
class SpoolPlace:
    """The place of temporary files: ``folder``, or the system's own if None. ``reserve`` bytes of
    its disk stay free."""

    folder: Path | None = None
    reserve: int = 0

    def check_room(self, size: int) -> None:
        """Raise StorageFull if ``size`` more bytes would take from the reserve."""
        folder = self.folder or Path(tempfile.gettempdir())
        if shutil.disk_usage(folder).free - size < self.reserve:
            raise StorageFull(_FULL)


class Spool:
    """A temporary file, whose first ``in_memory`` bytes stay in memory if no more come.

    Threads may write and read it, one at a time; ``close`` may be called at any time, from any
    thread.
    """

    def __init__(self, place: SpoolPlace, in_memory: int = 0) -> None:
        folder = None if place.folder is None else str(place.folder)
        self._file: IO[bytes] = (
            tempfile.SpooledTemporaryFile(in_memory, dir=folder)  # noqa: SIM115  # as long as this
            if in_memory
            else tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        )
        self._place, self._in_memory = place, in_memory
        self._size, self._closed = 0, False
        self._using = threading.Lock()
        weakref.finalize(self, _close_file, self._file)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Append ``data``. Raises StorageFull."""
        with self._open_file() as file:
            if self._size + len(data) > self._in_memory:
                self._place.check_room(len(data))
            file.write(data)
            self._size += len(data)

    def read(self, size: int = -1) -> bytes:
        """The next bytes; call ``rewind`` first."""
        with self._open_file() as file:
            return file.read(size)

    def rewind(self) -> None:
        """Go to the start. Afterwards everything written is in the file. Raises StorageFull."""
        with self._open_file() as file:
            file.flush()
            file.seek(0)

    def fileno(self) -> int:
        """The descriptor of the file, which can be passed to another process."""
        return self._file.fileno()

    def close(self) -> None:
        """Delete the file, as soon as no thread uses it. Does not wait."""
        self._closed = True
        if self._using.acquire(blocking=False):
            try:
                _close_file(self._file)
            finally:
                self._using.release()

    @contextmanager
    def _open_file(self) -> Iterator[IO[bytes]]:
        try:
            with self._using:
                yield self._file
        except OSError as exc:
            if exc.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StorageFull(_FULL) from exc
            raise
        finally:
            if self._closed:
                self.close()


def _close_file(file: IO[bytes]) -> None:
    # A full disk may refuse the last bytes, which are no longer needed.
    with suppress(OSError):
        file.close()
