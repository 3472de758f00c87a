"""Files on their way to the hub: kept aside until no row has to wait for their client.

An import locks the rows that it writes until it commits. A client that sends slowly would keep
them locked for as long as it likes. So the hub opens no transaction before the file is whole, or
KEPT_BYTES of it have come, or it comes so fast that loading it meanwhile is worth it. From then on
the client must keep up, and the whole import has an absolute bound.
"""

from __future__ import annotations

import asyncio
import errno
import tempfile
import weakref
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

from penstockd.budget import offload_large
from penstockd.errors import ClientStalled, StorageFull
from penstockd.shares import Shares, ShareTerms, payer_var
from penstockd.writes.pace import LEAST_RATE, Pace

#: Bytes of a file that are kept before its rows are locked, of these in memory, and of each read.
KEPT_BYTES, MEMORY_BYTES, CHUNK_BYTES = 64 * 1024 * 1024, 1024 * 1024, 256 * 1024
#: A file that has come so fast, in bytes per second, is loaded while it comes.
FAST_RATE = 1024 * 1024
#: Fewest bytes a second that a client must send while rows are locked.
LOCKED_RATE = 64 * 1024
#: Files that may arrive in one worker at one time, at most half of them of one consumer.
MOST_ARRIVING = 32


def _make_arriving() -> Shares:
    return Shares(MOST_ARRIVING, ShareTerms(1), what="files that arrive")


@dataclass(frozen=True, slots=True)
class ImportLimits:
    """Limits of imports.

    A client may make the hub wait ``stall_seconds`` besides what its bytes take at the least rate.
    A file must come, and then be loaded, within ``seconds`` each. What is large is kept in
    ``folder``, the system's own if None.
    """

    stall_seconds: float = 60.0
    seconds: float = 900.0
    folder: Path | None = None
    arriving: Shares = field(default_factory=_make_arriving)


class Arrival:
    """The bytes of one upload, from the first piece on."""

    def __init__(self, first: bytes, rest: AsyncIterator[bytes], limits: ImportLimits) -> None:
        self._rest, self._limits = rest, limits
        folder = None if limits.folder is None else str(limits.folder)
        self._kept = tempfile.SpooledTemporaryFile(MEMORY_BYTES, dir=folder)  # noqa: SIM115
        weakref.finalize(self, self._kept.close)
        self._first, self._size, self._whole = first, 0, False
        self._clock = asyncio.get_running_loop().time

    async def gather(self) -> None:
        """Keep what comes until rows may be locked.

        Raises ClientStalled, ShareExhausted and StorageFull.
        """
        payer, arriving = payer_var.get(), self._limits.arriving
        taken = await arriving.take(payer)
        try:
            async with asyncio.timeout(self._limits.seconds):
                await self._gather()
        except TimeoutError:
            raise ClientStalled(
                f"the file did not come within {self._limits.seconds:g} s; send it in parts"
            ) from None
        finally:
            arriving.give_back(payer, taken)

    async def _gather(self) -> None:
        pace, began = Pace(self._limits.stall_seconds, LEAST_RATE), self._clock()
        piece: bytes | None = self._first
        while piece is not None:
            await self._keep(piece)
            fast = self._size >= FAST_RATE * max(1.0, self._clock() - began)
            if fast or self._size >= KEPT_BYTES:
                return
            piece = await pace.next(self._rest, len(piece))
        self._whole = True

    async def _keep(self, piece: bytes) -> None:
        await self._disk(len(piece), self._kept.write, piece)
        self._size += len(piece)

    async def _disk(self, size: int, work: Callable[[bytes], int], piece: bytes) -> None:
        try:
            await offload_large(size, work, piece)
        except OSError as exc:
            if exc.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StorageFull("the hub has no room for the file; nothing was written") from exc
            raise

    async def read(self) -> AsyncIterator[bytes]:
        """All bytes, those that were kept first. Raises ClientStalled."""
        self._kept.seek(0)
        while chunk := await offload_large(self._size, self._kept.read, CHUNK_BYTES):
            yield chunk
        self._kept.close()
        if self._whole:
            return
        pace, received = Pace(self._limits.stall_seconds, LOCKED_RATE), 0
        while (piece := await pace.next(self._rest, received)) is not None:
            received = len(piece)
            yield piece
