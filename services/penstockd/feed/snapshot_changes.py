"""The records that exist when a stream begins, as changes of a kind of their own.

Each frame of them ends at a place: "the state at this cursor, up to this record". A stream that
broke off continues there with a new state. First come the changes of the records that were sent,
from the earlier state up to the new one, then the other records of the new state. So at the end the
client has exactly the new state, as after a snapshot that never broke off.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from penstockd.catalog import Catalog, Dataset
from penstockd.catalog.wire import WireCodec
from penstockd.feed.event import Event, FeedOperation
from penstockd.feed.reader import read_events
from penstockd.feed.source import FRAME_BYTES, FeedSource, Frame, place_frames
from penstockd.feed.watching import Wanted
from penstockd.policy.read import Scan
from penstockd.store.cursor import Cursor, leave_snapshot, read_marks, scope_of
from penstockd.store.database import Connection, Database, Rows
from penstockd.store.snapshots import Held
from penstockd.store.sql import Statement

#: The first and the largest number of rows that are read at a time; and the bytes at which a read
#: ends, including the row that reaches them.
FIRST_ROWS, ROWS, ROWS_BYTES = 20, 1000, 2 * 1024 * 1024
#: The most numbers of the log that are read at a time.
STRIDE = 2000
#: The place before all records.
FIRST_PLACE = ("", "")


class SnapshotFrames:
    """All records that the source's Views show in the held state, dataset by dataset.

    With ``since``, a place within an earlier snapshot, only what a stream still needs from there.
    ``cursor`` is the place in the log that the frames lead to, known when they have all been read.
    """

    def __init__(
        self,
        database: Database,
        catalog: Catalog,
        source: FeedSource,
        wanted: Wanted,
        held: Held,
        since: Cursor | None = None,
    ) -> None:
        """``since`` is in a snapshot of the source's datasets (see ``watching.open_start``)."""
        self._database, self._catalog, self._source = database, catalog, source
        self._wanted, self._held, self._since = wanted, held, since
        self._last, self.cursor = FIRST_PLACE, held.cursor
        self._scope = scope_of(source.lenses)
        if since is not None and since.last is not None:
            self._last, self.cursor = since.last, leave_snapshot(since)

    @property
    def place(self) -> Cursor:
        """The place at which the stream begins, and after the last frame that was read."""
        return replace(self.cursor, last=self._last, scope=self._scope)

    async def each(self, connection: Connection) -> AsyncGenerator[Frame, None]:
        """The frames, read in the connection's transaction, which must not have read anything
        before. A frame without changes only moves the place on.

        Raises DatabaseUnavailable, and ShareExhausted, CursorInvalid and CursorExpired for
        ``since``.
        """
        await self._held.share(connection)
        if self._since is not None:
            async for frame in self._changes(connection):
                yield frame
        if self._source.operations and FeedOperation.SNAPSHOT not in self._source.operations:
            return
        time = await connection.fetchval("SELECT now()")
        for name in sorted(self._source.lenses):
            if name >= self._last[0]:
                async for frame in self._records(connection, name, time):
                    yield frame

    async def _changes(self, connection: Connection) -> AsyncIterator[Frame]:
        """The changes, up to the held state, of the records that were sent before.

        The held state may have transactions without a number. The cursor does not name them: they
        follow as changes to all records, also to those that are still to be sent.
        """
        source, head = self._source, self._held.cursor.number
        while True:
            # The log may be long, and each read of it waits for its turn like those of all feeds.
            # Meanwhile the held state's reader must not fall silent.
            await connection.execute("SELECT 1")
            upto = Cursor(self.cursor.epoch, min(head, self.cursor.number + STRIDE))
            batch = await read_events(
                self._database, self._catalog, source.lenses, self.cursor, upto
            )
            events = [e for e in batch.events if (e.dataset, e.key) <= self._last]
            self.cursor, told = batch.cursor, False
            async for frame in self._fit(connection, events):
                yield frame
                told = True
            if not told:
                # A client that is cut off now does not begin this read again.
                yield Frame(b"", 0, b"", {}, ends=batch.whole, place=self.place)
            if batch.cursor.told is None and batch.cursor.number >= head:
                return

    async def _fit(self, connection: Connection, events: Sequence[Event]) -> AsyncIterator[Frame]:
        """Events as frames, of which the last ends at the place so far."""
        last: Frame | None = None
        async for part in _shape_parts(self._source, [e for e in events if self._source.wants(e)]):
            if last is not None:
                yield replace(last, place=None)  # the next part may begin in the same place
            if not part:
                continue
            *frames, last = await self._place(connection, self._source.frames(part))
            for frame in frames:
                yield frame
        if last is not None:
            yield last

    async def _place(self, connection: Connection, frames: Sequence[Frame]) -> Sequence[Frame]:
        """Frames with their places."""
        marks: Mapping[int, bytes] = {}
        if len(frames) > 1 and not self.cursor.ahead:
            marks = await read_marks(connection, [f.end.transaction for f in frames if f.end])
        return place_frames(frames, self.place, marks, whole=False)

    async def _records(
        self, connection: Connection, name: str, time: datetime
    ) -> AsyncIterator[Frame]:
        """The records of one dataset, after the place so far."""
        lens = self._source.lenses[name]
        codec = WireCodec(lens.dataset, lens.fields)
        after = self._last[1] if name == self._last[0] else None
        scan = Scan(lens.view, lens.fields, self._wanted.filter, after)
        rows = await _open_cursor(connection, scan.statement)
        ahead = _SizesAhead(await _open_cursor(connection, scan.sizes))
        most = FIRST_ROWS
        while step := await ahead.fitting(most):
            found = await rows.fetch(step)
            columns = [list(c) for c in zip(*found, strict=True)]
            images = codec.images(columns[1:])
            most = min(10 * most, ROWS)
            events = _snapshot_events(self._held, lens.dataset, columns[0], images, time)
            async for part in _shape_parts(self._source, events):
                for frame in self._source.frames(part):
                    self._last = (name, frame.keys[name][-1])
                    yield replace(frame, place=self.place)


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
