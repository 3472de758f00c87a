"""The records that exist when a stream begins, as changes of a kind of their own."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, Sequence
from datetime import datetime

from penstockd.catalog import Dataset
from penstockd.catalog.wire import WireCodec
from penstockd.feed.event import Event, FeedOperation
from penstockd.feed.source import FRAME_BYTES, FeedSource, Frame
from penstockd.feed.watching import Wanted
from penstockd.policy.read import Scan
from penstockd.store.database import Connection, Rows
from penstockd.store.snapshots import Held
from penstockd.store.sql import Statement

#: The first and the largest number of rows that are read at a time; and the bytes at which a read
#: ends, including the row that reaches them.
FIRST_ROWS, ROWS, ROWS_BYTES = 20, 1000, 2 * 1024 * 1024


async def snapshot_frames(
    connection: Connection, source: FeedSource, wanted: Wanted, held: Held
) -> AsyncGenerator[Frame, None]:
    """All records that the source's Views show in the held state, dataset by dataset.

    They are read in the connection's transaction, which must not have read anything before. Raises
    DatabaseUnavailable.
    """
    if source.operations and FeedOperation.SNAPSHOT not in source.operations:
        return
    await held.share(connection)
    time = await connection.fetchval("SELECT now()")
    for name in sorted(source.lenses):
        lens = source.lenses[name]
        codec = WireCodec(lens.dataset, lens.fields)
        scan = Scan(lens.view, lens.fields, wanted.filter)
        rows = await _open_cursor(connection, scan.statement)
        ahead = _SizesAhead(await _open_cursor(connection, scan.sizes))
        most = FIRST_ROWS
        while step := await ahead.fitting(most):
            found = await rows.fetch(step)
            columns = [list(c) for c in zip(*found, strict=True)]
            images = codec.images(columns[1:])
            most = min(10 * most, ROWS)
            events = _snapshot_events(held, lens.dataset, columns[0], images, time)
            async for part in _shape_parts(source, events):
                for frame in source.frames(part):
                    yield frame


async def _shape_parts(
    source: FeedSource, events: Sequence[Event]
) -> AsyncGenerator[Sequence[Event], None]:
    """The events; in parts of about a frame if their records come in the columns of a shape."""
    if not source.shapes:
        yield events
        return
    part: list[Event] = []
    size = 0
    for event in events:
        part += await source.shape([event])
        size += part[-1].size
        if size >= FRAME_BYTES:
            yield part
            part, size = [], 0
    if part:
        yield part


class _SizesAhead:
    """Reports the sizes of the next rows before they are read, from a cursor over the sizes."""

    def __init__(self, cursor: Rows) -> None:
        self._cursor = cursor
        self._sizes: deque[int] = deque()

    async def fitting(self, most: int) -> int:
        """The number of rows to read next; 0 after the last."""
        if len(self._sizes) < most:
            self._sizes += [row[0] for row in await self._cursor.fetch(ROWS)]
        count = size = 0
        while self._sizes and count < most and size < ROWS_BYTES:
            size += self._sizes.popleft()
            count += 1
        return count


async def _open_cursor(connection: Connection, statement: Statement) -> Rows:
    return await connection.cursor(statement.text, *statement.arguments())


def _snapshot_events(
    held: Held, dataset: Dataset, keys: Sequence[str], images: Sequence[bytes], time: datetime
) -> Sequence[Event]:
    number = held.cursor.number
    return [
        Event(number, number, dataset.name, key, FeedOperation.SNAPSHOT, None, image, (), time)
        for key, image in zip(keys, images, strict=True)
    ]
