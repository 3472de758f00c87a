"""Files on their way to the hub: buffered until no row has to wait for their client.

An import locks the rows that it writes until it commits. A client that sends slowly would keep them
locked for as long as it likes. So the hub opens no transaction before the file is complete, or
KEPT_BYTES of it have arrived, or it has arrived fast for a while, so that loading it meanwhile is
worthwhile. From then on the client must keep up, and the whole import has an absolute bound.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from penstockd.budget import offload_large
from penstockd.errors import ClientStalled
from penstockd.shares import Shares, ShareTerms, payer_var
from penstockd.spools import Spool, SpoolPlace
from penstockd.writes.pace import LEAST_RATE, Pace, SlowTerms

#: The bytes of a file that are buffered before its rows are locked, those of them in memory, and
#: those of each read.
KEPT_BYTES, MEMORY_BYTES, CHUNK_BYTES = 64 * 1024 * 1024, 1024 * 1024, 256 * 1024
#: A file that has arrived this fast, in bytes per second, in this many seconds one after the other,
#: is loaded while it arrives.
FAST_RATE, FAST_SECONDS = 1024 * 1024, 3
#: The fewest bytes a second that a client must send while rows are locked, and the seconds for
#: which it may be silent then.
LOCKED_RATE, LOCKED_STALL = 64 * 1024, 5.0
#: How long the hub waits in all, while rows are locked, for a client that is slower than those for
#: which rows are locked early: others wait for these rows.
LOCKED_SLOW = SlowTerms(30.0, FAST_RATE)
#: The most files that may arrive or wait to be loaded in one worker at one time, at most half of
#: them of one consumer, and the seconds that a file waits until it may start.
MOST_ARRIVING, PLACE_SECONDS = 32, 30.0


def _make_arriving() -> Shares:
    terms = ShareTerms(1, seconds=PLACE_SECONDS)
    return Shares(MOST_ARRIVING, terms, what="files that arrive")


@dataclass(frozen=True, slots=True)
class ImportLimits:
    """Limits of imports.

    A client may make the hub wait ``stall_seconds`` in addition to the time that its bytes take at
    the minimum rate. A file must arrive, and then be loaded, within ``seconds`` each. Large files
    are buffered in ``spools``.
    """

    stall_seconds: float = 60.0
    seconds: float = 900.0
    spools: SpoolPlace = field(default_factory=SpoolPlace)
    arriving: Shares = field(default_factory=_make_arriving)


class Arrival:
    """The bytes of one upload, from the first piece on."""

    def __init__(self, first: bytes, rest: AsyncIterator[bytes], limits: ImportLimits) -> None:
        self._rest, self._limits = rest, limits
        self._kept = Spool(limits.spools, MEMORY_BYTES)
        self._first, self._size, self._whole = first, 0, False
        self._clock = asyncio.get_running_loop().time

    @asynccontextmanager
    async def hold_place(self) -> AsyncIterator[None]:
        """Hold one of the places for files in the block, and drop the buffered bytes after it:
        files that wait to be loaded take space as well. Raises ShareExhausted."""
        payer, arriving = payer_var.get(), self._limits.arriving
        taken = await arriving.take(payer)
        try:
            yield
        finally:
            self._kept.close()
            arriving.give_back(payer, taken)

    async def gather(self) -> None:
        """Buffer what arrives until rows may be locked. Raises ClientStalled and StorageFull."""
        async with self._in_time():
            await self._gather()

    async def _gather(self) -> None:
        pace, haste = Pace(self._limits.stall_seconds, LEAST_RATE), _Haste(self._clock())
        piece: bytes | None = self._first
        while piece is not None:
            await offload_large(len(piece), self._kept.write, piece)
            self._size += len(piece)
            if haste.lasts(len(piece), self._clock()) or self._size >= KEPT_BYTES:
                return
            piece = await pace.next(self._rest, len(piece))
        self._whole = True

    async def read(self) -> AsyncGenerator[bytes, None]:
        """All bytes, first the buffered ones, while rows are locked. Raises ClientStalled."""
        stall = min(self._limits.stall_seconds, LOCKED_STALL)
        async for piece in self._read(Pace(stall, LOCKED_RATE, LOCKED_SLOW)):
            yield piece

    async def read_unlocked(self) -> AsyncGenerator[bytes, None]:
        """As ``read``, for a file that is not loaded: it must still arrive in time."""
        async with self._in_time():
            async for piece in self._read(Pace(self._limits.stall_seconds, LEAST_RATE)):
                yield piece

    async def _read(self, pace: Pace) -> AsyncIterator[bytes]:
        self._kept.rewind()
        while chunk := await offload_large(self._size, self._kept.read, CHUNK_BYTES):
            yield chunk
        self._kept.close()
        received = 0
        while not self._whole and (piece := await pace.next(self._rest, received)) is not None:
            received = len(piece)
            yield piece

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        timeout = asyncio.timeout(self._limits.seconds)
        try:
            async with timeout:
                yield
        except TimeoutError:
            if not timeout.expired():
                raise
            raise ClientStalled(
                f"the file did not arrive within {self._limits.seconds:g} s; send it in parts"
            ) from None


class _Haste:
    """Whether a file has arrived fast for a while."""

    def __init__(self, now: float) -> None:
        self._began, self._size, self._fast = now, 0, 0

    def lasts(self, size: int, now: float) -> bool:
        """Whether it has, now that ``size`` more bytes have arrived.

        Each second counts separately: a burst at the start says nothing about the rest.
        """
        self._size += size
        took = now - self._began
        if took >= 1.0:
            self._fast = self._fast + 1 if self._size >= FAST_RATE * took else 0
            self._began, self._size = now, 0
        return self._fast >= FAST_SECONDS
