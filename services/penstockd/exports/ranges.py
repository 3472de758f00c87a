"""A read over several connections that see one state: ranges of keys, passed on in order.

The result is exactly the stream of a single connection, so readers need not know the difference.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence

from penstockd import budget
from penstockd.exports.pipeline import Take
from penstockd.policy.read import LOWER, UPPER, ExportQuery
from penstockd.store.database import Connection
from penstockd.store.snapshots import Held
from penstockd.store.sql import apply_settings
from penstockd.tasks import next_item

#: Keys in one range: few enough that a range whose turn has not come fits into its queue.
RANGE_KEYS = 16 * 1024
#: Bytes that are passed on at once, and how many such blocks wait on each connection.
BLOCK_BYTES, QUEUE_BLOCKS = 128 * 1024, 64

_HEADER, _TRAILER = 19, b"\xff\xff"  # of a binary COPY without extensions


async def read_ranges(
    connections: Sequence[Connection], held: Held, read: ExportQuery, take: Take
) -> None:
    """Pass the stream of the whole read, which must be ``splittable``, to ``take``.

    The connections are in transactions on the held state. Raises the driver's errors (the causes of
    DatabaseUnavailable), and what ``take`` raises.
    """
    crew = _Crew(connections, held, read)
    try:
        await crew.hand_on(take)
    finally:
        await crew.dismiss()


class _Crew:
    """One reader for each connection; ranges are assigned to the readers in turn."""

    def __init__(self, connections: Sequence[Connection], held: Held, read: ExportQuery) -> None:
        count = len(connections)
        self._held, self._read = held, read
        self._jobs: list[asyncio.Queue[tuple[int, str, str | None] | None]]
        self._jobs = [asyncio.Queue(1) for _ in range(count)]
        # A range ends with b""; None follows the last range of a reader.
        self._blocks: list[asyncio.Queue[bytes | None]]
        self._blocks = [asyncio.Queue(QUEUE_BLOCKS) for _ in range(count)]
        self._dealing = budget.create_task(self._deal())
        self._working = [budget.create_task(self._work(n, c)) for n, c in enumerate(connections)]

    async def hand_on(self, take: Take) -> None:
        """Pass on the blocks of all ranges, in order."""
        turn = 0
        while True:
            place = turn % len(self._blocks)
            block = await next_item(self._blocks[place], self._working[place])
            if block is None:
                return
            if block:
                await take(block)
            else:
                turn += 1

    async def dismiss(self) -> None:
        """End the readers that still run."""
        for task in (self._dealing, *self._working):
            task.cancel()
        await asyncio.gather(self._dealing, *self._working, return_exceptions=True)

    async def _deal(self) -> None:
        number = 0
        async for lower, upper in self._ranges():
            await self._jobs[number % len(self._jobs)].put((number, lower, upper))
            number += 1
        for jobs in self._jobs:
            await jobs.put(None)

    async def _ranges(self) -> AsyncIterator[tuple[str, str | None]]:
        """Lower and upper bounds of ranges; the upper is exclusive, and None for the last range."""
        step, lower = self._read.step(RANGE_KEYS), ""
        while True:
            rows = await self._held.fetch(step.text, *step.arguments(after=lower))
            upper = rows[0][0] if rows else None
            yield lower, upper
            if upper is None:
                return
            lower = upper

    async def _work(self, place: int, connection: Connection) -> None:
        blocks = self._blocks[place]
        copies = {last: self._read.copy_range(last=last) for last in (False, True)}
        while (job := await next_item(self._jobs[place], self._dealing)) is not None:
            number, lower, upper = job
            bounds = {LOWER: lower} if upper is None else {LOWER: lower, UPPER: upper}
            sql, settings = copies[upper is None]
            await self._copy(
                connection, sql, {**settings, **bounds}, blocks, number == 0, upper is None
            )
            await blocks.put(b"")
        await blocks.put(None)

    async def _copy(
        self,
        connection: Connection,
        sql: str,
        settings: Mapping[str, str],
        blocks: asyncio.Queue[bytes | None],
        first: bool,
        last: bool,
    ) -> None:
        """Copy one range. Only the first range of the stream keeps its header, and only the last
        its trailer."""
        gathered = bytearray()
        ahead = 0 if first else _HEADER

        async def give(keep: int) -> None:
            nonlocal ahead
            end = len(gathered) - keep
            if end > ahead:
                await blocks.put(bytes(memoryview(gathered)[ahead:end]))
                del gathered[:end]
                ahead = 0

        async def take(chunk: bytes) -> None:
            gathered.extend(chunk)
            if len(gathered) >= BLOCK_BYTES:
                await give(len(_TRAILER))

        await apply_settings(connection, settings)
        await connection.copy_from_query(sql, output=take, format="binary")
        await give(0 if last else len(_TRAILER))
