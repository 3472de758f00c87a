"""Reads and encodes each stretch of the log once for all subscribers that see the same.

A subscriber that is catching up reads up to the next multiple of STRIDE, or less if changes are
large. Subscribers of one View cut at the same places, so they share blocks, which are cached within
a bound of bytes. A subscriber that has reached the end joins the channel of its source, which one
task moves on. A subscriber that is too slow for its channel catches up from the log: nothing is
queued for it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

import structlog

from penstockd.budget import own_task, shared_task
from penstockd.catalog import Catalog
from penstockd.errors import Refused, ShareExhausted
from penstockd.feed.event import EventBatch
from penstockd.feed.reader import read_events
from penstockd.feed.source import Block, FeedSource, place_frames
from penstockd.feed.tail import Tail
from penstockd.shares import for_the_hub
from penstockd.store.announcements import Announcements
from penstockd.store.cursor import Cursor, Extent, read_extent, read_marks
from penstockd.store.database import Database

#: A subscriber that catches up reads to the next multiple of this number.
STRIDE = 2000
#: Bytes of stretches that are cached for other subscribers that catch up.
KEPT_BYTES = 32 * 1024 * 1024
#: Bytes and blocks that a channel keeps for its subscribers to take.
CHANNEL_BYTES, CHANNEL_BLOCKS = 4 * 1024 * 1024, 256
#: How long a channel waits before it tries a failed read again, in seconds.
RETRY = 0.2

_log = structlog.get_logger(__name__)


@dataclass(eq=False)
class _Channel:
    """The end of the log as one source shows it.

    ``position`` is the place up to which it has been read; ``recent`` are the blocks that are not
    empty, numbered from ``first`` on. It is ``dropped`` when the log has gone back in time.
    """

    source: FeedSource
    position: Cursor
    recent: deque[Block] = field(default_factory=deque)
    first: int = 0
    size: int = 0
    whole: bool = True
    subscribers: int = 0
    dropped: bool = False
    moved: asyncio.Event = field(default_factory=asyncio.Event)
    error: Exception | None = None
    task: asyncio.Task[None] | None = None

    @property
    def end(self) -> int:
        """The number that the next block will have."""
        return self.first + len(self.recent)

    def add(self, block: Block) -> None:
        """Add a block for all that wait, and drop the oldest ones if there are too many."""
        self.recent.append(block)
        self.size += block.size
        while len(self.recent) > 1 and (
            self.size > CHANNEL_BYTES or len(self.recent) > CHANNEL_BLOCKS
        ):
            self.size -= self.recent.popleft().size
            self.first += 1
        self.wake()

    def wake(self) -> None:
        """Let all that wait check again."""
        moved, self.moved = self.moved, asyncio.Event()
        moved.set()


class Broadcast:
    """The feed of one process."""

    def __init__(
        self,
        database: Database,
        announcements: Announcements,
        catalog: Catalog,
        *,
        hours: int = 0,
    ) -> None:
        """``hours`` is the time for which the log is kept; callers can ask for it."""
        self.hours = hours
        self.tail = Tail(database, announcements, self._drop_all)
        self.stopping = asyncio.Event()
        self._database, self._catalog = database, catalog
        self._channels: dict[tuple[object, ...], _Channel] = {}
        self._kept: OrderedDict[tuple[object, ...], asyncio.Task[Block]] = OrderedDict()
        self._kept_bytes = 0

    def stop(self) -> None:
        """Let all subscribers end normally."""
        self.stopping.set()
        self.tail.bells.ring("")
        for channel in self._channels.values():
            channel.wake()

    def _drop_all(self) -> None:
        """Drop everything that was read, which may be undone: the log has gone back in time.

        All subscribers start again at their own cursors, which the log accepts or refuses.
        """
        channels, self._channels = self._channels, {}
        for channel in channels.values():
            channel.dropped = True
            assert channel.task is not None
            channel.task.cancel()
            channel.wake()
        self._kept, self._kept_bytes = OrderedDict(), 0

    def subscribe(self, source: FeedSource, cursor: Cursor) -> Subscriber:
        """A place in the feed, from which a subscriber takes one block after another."""
        return Subscriber(self, source, cursor)

    async def head(self) -> Cursor:
        """The current end of the log. Raises DatabaseUnavailable."""
        return (await self.extent()).newest

    async def extent(self) -> Extent:
        """The current bounds of the log. Raises DatabaseUnavailable."""
        async with self._database.connection() as connection:
            return await read_extent(connection)

    async def read(self, source: FeedSource, cursor: Cursor, upto: int | Cursor) -> EventBatch:
        """Events after a cursor, at most up to ``upto``; see ``read_events``."""
        batch = await read_events(self._database, self._catalog, source.lenses, cursor, upto)
        self.tail.hear(batch.head)
        return batch

    async def read_shaped(
        self, source: FeedSource, cursor: Cursor, upto: int | Cursor
    ) -> EventBatch:
        """As ``read``, with records in the columns of the source's shapes, if it has any; fewer
        events if these are large. Also raises ShapeUnfit and RecordUnreadable."""
        batch = await self.read(source, cursor, upto)
        shaped = await source.shape(batch.events)
        if len(shaped) < len(batch.events):
            batch = await self.read(source, cursor, shaped[-1].number)
        return replace(batch, events=tuple(shaped))

    async def next_stretch(self, source: FeedSource, cursor: Cursor, most: int = STRIDE) -> Block:
        """The next block after a cursor that is before the end, of at most ``most`` numbers."""
        return await self.stretch(source, cursor, self._end(cursor, most))

    async def stretch(self, source: FeedSource, cursor: Cursor, upto: int) -> Block:
        """The block after a cursor, read once for all that ask for it at about the same time."""
        while True:
            task, own = self._task(source, cursor, upto)
            try:
                return await asyncio.shield(task)
            except ShareExhausted:
                if own:
                    raise  # else the first caller's share was exhausted

    def prepare(self, source: FeedSource, cursor: Cursor, most: int) -> asyncio.Task[Block] | None:
        """Start to read the block that ``next_stretch`` returns next, while the last one is being
        sent."""
        if most > 0 and not cursor.ahead:
            return self._task(source, cursor, self._end(cursor, most))[0]
        return None

    def _end(self, cursor: Cursor, most: int) -> int:
        if cursor.told is not None:
            return cursor.end
        end = min((cursor.number // STRIDE + 1) * STRIDE, cursor.number + most)
        return min(self.tail.head, end)

    def _task(
        self, source: FeedSource, cursor: Cursor, upto: int
    ) -> tuple[asyncio.Task[Block], bool]:
        """The task that reads a block, and whether this call starts it, on its consumer's share."""
        key = (source.identity, cursor, upto)
        task = self._kept.get(key)
        own = task is None or (task.done() and task.exception() is not None)
        if task is None or own:
            task = shared_task(self._encode(source, cursor, upto))
            self._kept[key] = task
            task.add_done_callback(lambda done: self._keep(key, done))
        else:
            self._kept.move_to_end(key)
        return task, own

    async def _encode(self, source: FeedSource, cursor: Cursor, upto: int) -> Block:
        block = source.block(cursor, await self.read_shaped(source, cursor, upto))
        if not block.frames:
            return block
        marks: Mapping[int, bytes] = {}
        # Transactions that a snapshot saw before they had a number complicate the places within.
        if len(block.frames) > 1 and not cursor.ahead:
            async with self._database.connection() as connection:
                marks = await read_marks(
                    connection, [f.end.transaction for f in block.frames if f.end]
                )
        frames = place_frames(block.frames, block.cursor, marks, whole=block.checkpoint)
        return replace(block, frames=frames)

    def _keep(self, key: tuple[object, ...], task: asyncio.Task[Block]) -> None:
        if self._kept.get(key) is not task:
            return  # it was dropped
        if task.cancelled() or task.exception() is not None:
            del self._kept[key]
            return
        self._kept_bytes += task.result().size
        while self._kept_bytes > KEPT_BYTES and len(self._kept) > 1:
            oldest, other = next(iter(self._kept.items()))
            if not other.done():
                break
            del self._kept[oldest]
            self._kept_bytes -= other.result().size

    def join(self, source: FeedSource) -> _Channel | None:
        """The source's channel, created if need be; None before the end of the log is known."""
        channel = self._channels.get(source.identity)
        if channel is None:
            if self.tail.newest is None:
                return None
            channel = _Channel(source, self.tail.newest)
            self._channels[source.identity] = channel
            with for_the_hub():
                channel.task = own_task("feed channel", self._move(channel))
        channel.subscribers += 1
        return channel

    def leave(self, channel: _Channel) -> None:
        """Leave a channel; the last one to leave ends it."""
        channel.subscribers -= 1
        if channel.subscribers == 0:
            assert channel.task is not None
            channel.task.cancel()
            if self._channels.get(channel.source.identity) is channel:
                del self._channels[channel.source.identity]

    async def _move(self, channel: _Channel) -> None:
        """Move a channel on with the log, until all have left it.

        A defect ends the channel and all its subscribers, so that none waits in vain.
        """
        try:
            await self._move_on(channel)
        except Exception as exc:
            _log.exception("channel_broken")
            if self._channels.get(channel.source.identity) is channel:
                del self._channels[channel.source.identity]
            channel.error = exc
            channel.wake()

    async def _move_on(self, channel: _Channel) -> None:
        while True:
            await self.tail.wait(channel.position.number, 60.0)
            if self.tail.head <= channel.position.number:
                continue
            try:
                upto = min(self.tail.head, channel.position.number + STRIDE)
                block = await self._encode(channel.source, channel.position, upto)
            except Refused as exc:
                _log.warning("channel_waits", error=str(exc))
                channel.error = exc
                channel.wake()
                await asyncio.sleep(RETRY)
                continue
            channel.error = None
            channel.position, channel.whole = block.cursor, block.checkpoint
            if block.frames:
                channel.add(block)


class Subscriber:
    """One subscriber's place.

    ``cursor`` is the place after everything that it has received; ``whole`` states whether that is
    the end of a transaction.
    """

    def __init__(self, feed: Broadcast, source: FeedSource, cursor: Cursor) -> None:
        self.cursor = cursor
        self.whole = True
        self._feed, self._source = feed, source
        self._channel: _Channel | None = None
        self._next: int | None = None  # the channel's block to take next; None: still catching up
        self._ahead: asyncio.Task[Block] | None = None  # the next block, while it catches up

    async def take(self, seconds: float) -> Block | None:
        """The next block that is not empty; None if there is none within the time.

        Raises CursorInvalid, CursorExpired and DatabaseUnavailable.
        """
        clock = asyncio.get_running_loop().time
        deadline = clock() + seconds
        while not self._feed.stopping.is_set():
            block = await (self._catch_up() if self._next is None else self._listen(deadline))
            if block is not None:
                self.cursor, self.whole = block.cursor, block.checkpoint
                if block.frames:
                    return block
            if clock() >= deadline:
                break
        return None

    def when_ahead(self, work: Callable[[Block], object]) -> None:
        """Call ``work`` with the block that will be taken next, as soon as it has been read.

        This may never happen: a subscriber at the end of the log has no next block yet.
        """
        ahead, self._ahead = self._ahead, None

        def then(task: asyncio.Task[Block]) -> None:
            if not task.cancelled() and task.exception() is None and task.result().frames:
                work(task.result())

        if ahead is not None:
            ahead.add_done_callback(then)

    def close(self) -> None:
        """Give up the place."""
        if self._channel is not None:
            self._feed.leave(self._channel)
            self._channel = self._next = None

    async def _catch_up(self) -> Block | None:
        """The next stretch; if there is none, take a place in the channel."""
        if self._channel is None:
            self._channel = self._feed.join(self._source)
        if self._channel is None:
            await asyncio.sleep(RETRY)
            return None
        number, position = self.cursor.number, self._channel.position
        if self.cursor == position:
            self._next = self._channel.end
            return None
        if self.cursor.place < position.place:
            behind = max(1, position.number - number)
            block = await self._feed.next_stretch(self._source, self.cursor, behind)
            left = position.number - block.cursor.number
            self._ahead = self._feed.prepare(self._source, block.cursor, left)
            return block
        # The cursor is ahead of what this process knows, or transactions that its snapshot saw
        # still wait for their numbers. An invalid cursor is found here, too.
        if not await self._feed.tail.wait(number, RETRY):
            batch = await self._feed.read(self._source, self.cursor, number)
            self.cursor = batch.cursor  # a cursor of an earlier version gets its mark here
            return None
        return await self._feed.stretch(self._source, self.cursor, self._feed.tail.head)

    async def _listen(self, deadline: float) -> Block | None:
        """The next block of the channel, once it arrives."""
        channel = self._channel
        assert channel is not None and self._next is not None
        if channel.dropped:
            self._channel = self._next = None
            return None
        if self._next < channel.first:
            self._next = None  # too slow: back to the log
            return None
        if self._next < channel.end:
            block = channel.recent[self._next - channel.first]
            self._next += 1
            return block
        # Positions that the channel skipped because they were empty count as delivered.
        self.cursor, self.whole = channel.position, channel.whole
        if channel.error is not None:
            raise channel.error
        with suppress(TimeoutError):
            async with asyncio.timeout_at(deadline):
                await channel.moved.wait()
        return None
