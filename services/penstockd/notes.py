"""Notes that are kept in memory and written at intervals."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import ClassVar

import structlog

from penstockd.errors import Refused

#: The shortest time between two writes of notes, in seconds.
INTERVAL = 60.0

_log = structlog.get_logger(__name__)


class Notes(ABC):
    """Notes of one process. A killed process loses the notes of its last INTERVAL at most."""

    #: The log event for last notes that cannot be written.
    lost: ClassVar[str]

    def __init__(self) -> None:
        self._any = asyncio.Event()

    @abstractmethod
    async def _write(self) -> None:
        """Write the notes. If that fails, keep them, call ``_note_any`` and raise the error."""

    def _note_any(self) -> None:
        """Signal that notes wait to be written."""
        self._any.set()

    async def flush(self) -> None:
        """Write the notes, if there are any. Raises DatabaseUnavailable; then they are kept."""
        self._any.clear()
        await self._write()

    async def close(self) -> None:
        """Write the notes if possible."""
        try:
            await self.flush()
        except Refused as exc:
            _log.warning(self.lost, error=str(exc))

    async def follow(self, interval: float = INTERVAL) -> None:
        """Write notes as soon as there are any, at most every ``interval`` seconds, until
        cancelled.

        Raises DatabaseUnavailable; run it again then.
        """
        while True:
            await self._any.wait()
            await self.flush()
            await asyncio.sleep(interval)
