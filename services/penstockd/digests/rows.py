"""COPY -> digests, in another thread, while the database sends the next rows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from penstockd import budget
from penstockd.budget import in_thread
from penstockd.native.digest import Digester
from penstockd.native.digest_kernel import Digested

#: Bytes of the database's stream that are digested at once.
CHUNK_BYTES = 512 * 1024


class Rows:
    """Takes the bytes of one COPY; passes the digests of its rows to ``consume``, in a thread.

    One chunk is digested while the next one is gathered, and no more: memory is bounded.
    """

    def __init__(self, digester: Digester, consume: Callable[[Digested], None]) -> None:
        self._digester, self._consume = digester, consume
        self._gathered = bytearray()
        self._job: asyncio.Task[None] | None = None

    async def take(self, data: bytes) -> None:
        """Add the next bytes. Raises what ``consume`` raised, and FormatError."""
        self._gathered.extend(data)
        if len(self._gathered) >= CHUNK_BYTES:
            await self._hand()

    async def finish(self) -> None:
        """Digest the rest. Raises as ``take``."""
        await self._hand()
        await self._settle()

    async def stop(self) -> None:
        """Wait for a chunk that is still being digested; ignore its errors."""
        if self._job is not None:
            await asyncio.gather(self._job, return_exceptions=True)
            self._job = None

    async def _hand(self) -> None:
        chunk = bytes(self._gathered)
        self._gathered.clear()
        await self._settle()
        self._job = budget.create_task(in_thread(self._work, chunk))

    async def _settle(self) -> None:
        if self._job is not None:
            job, self._job = self._job, None
            await job

    def _work(self, chunk: bytes) -> None:
        for done in self._digester.feed(chunk):
            if done.rows:
                self._consume(done)
