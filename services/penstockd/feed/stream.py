"""Streams of changes, after a cursor or after a snapshot of all records.

The stream ends only when the caller leaves, or when it may no longer continue as it began; then its
last record states why, and how to continue. Everything sent is checked against the current policy.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Coroutine
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

import structlog

from penstockd import budget
from penstockd.calls import Call, Permit
from penstockd.errors import (
    ClientStalled,
    HubStopping,
    RecordUnreadable,
    Refused,
    ValueInvalid,
    Violation,
)
from penstockd.exports.receipts import Receipt, ReceiptState, new_receipt_id, store_receipt
from penstockd.feed.broadcast import Subscriber
from penstockd.feed.disclosing import FeedDisclosure
from penstockd.feed.organs import StreamOrgans
from penstockd.feed.reply import Begin, End, FeedReply
from penstockd.feed.snapshot_changes import SnapshotFrames
from penstockd.feed.source import Block, FeedSource, Frame
from penstockd.feed.watching import ShapesInUse, Standings, Wanted, open_start, reconcile_of
from penstockd.observe.metrics import find_histogram
from penstockd.policy.unreadable import find_unreadable, name_unreadable
from penstockd.store.cursor import Cursor, leave_snapshot
from penstockd.store.database import translate_errors
from penstockd.store.snapshots import Held

#: The usual number of changes in a message.
USUAL_BATCH = 500
#: How often an idle stream checks whether it may continue, in seconds.
LOOK = 2.0
#: The usual time between heartbeats, and the longest, in seconds.
USUAL_HEARTBEAT, MAX_HEARTBEAT = 10, 15
#: The time for sending the last record of a stream, in seconds.
LAST_WORD_SECONDS = 2.0

T = TypeVar("T")

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Watch:
    """The start of a stream and its options, as the caller wrote them."""

    cursor: str = ""
    snapshot: bool = False
    heartbeat_seconds: int = 0

    def check(self) -> None:
        """Raise ValueInvalid for a cursor and a snapshot."""
        if self.snapshot and self.cursor:
            raise ValueInvalid(
                "a snapshot begins where it is taken",
                violations=[Violation("cursor", "cannot be given together with snapshot")],
            )


class ChangeStream:
    """One stream in progress."""

    def __init__(
        self,
        organs: StreamOrgans,
        call: Call,
        wanted: Wanted,
        source: FeedSource,
        watch: Watch,
        reply: FeedReply,
    ) -> None:
        self._organs, self._call, self._wanted = organs, call, wanted
        self._source, self._watch, self._reply = source, watch, reply
        ends = call.principal.expires
        self._standings = Standings(organs.policy, call, source, ends)
        self._shapes = ShapesInUse(organs, call, source)
        self._disclosure = FeedDisclosure(call, source)
        self._digest = hashlib.sha256()
        self._rows = self._bytes = 0
        # The transaction whose changes were sent last, and their number, until its end is sent.
        self._transaction = self._of_transaction = 0
        self._snapshot: _Snapshot | None = None  # until it is sent
        self._stack = AsyncExitStack()  # holds what reads the snapshot, until it is sent
        # The last checkpoint, and the last place in a snapshot or a transaction after it, if any.
        self._cursor = Cursor("", 0)
        self._place: Cursor | None = None
        self._again = False  # whether a snapshot continues an earlier one
        self._clock = asyncio.get_running_loop().time
        self._every = watch.heartbeat_seconds or USUAL_HEARTBEAT
        self._begun = self._stalled = False
        self._opened = datetime.now(UTC)
        self._receipt = self._new_receipt()

    async def run(self) -> None:
        """Send changes until the caller leaves; see ``commands.watch_changes`` for errors."""
        await self._open()
        try:
            async with self._stack:
                await self._send_all()
        except BaseException as exc:
            await self._fail(exc)
            raise

    async def _open(self) -> None:
        """Find the place where the stream begins. Nothing is sent yet."""
        self._watch.check()
        start = None
        if self._watch.cursor:
            start = await open_start(self._organs, self._source, self._watch.cursor)
            self._cursor = leave_snapshot(start)
        if self._watch.snapshot or (start is not None and start.last is not None):
            await self._open_snapshot(start)
        elif start is None:
            self._cursor = await self._organs.feed.head()

    async def _open_snapshot(self, since: Cursor | None) -> None:
        """Take a state to send all records of, or what a stream still needs since a place in an
        earlier state."""
        # Connect before taking a state: a consumer holds no more states than it may read.
        reading = self._organs.database.snapshot()
        connection = await self._stack.enter_async_context(reading)
        try:
            held = await self._organs.snapshots.take()
            self._stack.callback(self._organs.snapshots.release, held)
            organs, source = self._organs, self._source
            frames = SnapshotFrames(
                organs.database, organs.catalog, source, self._wanted, held, since
            )
        except BaseException:
            await self._stack.aclose()
            raise
        self._snapshot = _Snapshot(held, frames, frames.each(connection))
        self._cursor, self._place = frames.cursor, frames.place
        self._again = since is not None

    async def _send_all(self) -> None:
        """Send the snapshot, if it is requested, and then changes without end."""
        fresh = self._snapshot is not None and not self._again
        start = self._cursor if fresh else (self._place or self._cursor)
        begin = Begin(
            start,
            None if fresh else start,
            self._source.view,
            self._call.policy.revision,
            self._receipt.receipt_id,
            self._source.shape_names,
            self._source.lenses,
        )
        self._receipt.cursor = self._cursor
        self._call.entry.receipt_id = self._receipt.receipt_id
        self._bytes += await self._in_time(self._reply.begin(begin))
        self._begun = True
        self._call.note_sent(self._rows, self._bytes)
        if self._snapshot is not None:
            await self._send_snapshot(self._snapshot)
        subscription = self._organs.feed.subscribe(self._source, self._cursor)
        try:
            silent = self._clock() + self._every
            while True:
                self._standings.check()
                await self._shapes.check()
                left = silent - self._clock()
                block = await subscription.take(max(0.0, min(left, LOOK)))
                if block is not None:
                    await self._send_block(block, subscription)
                elif self._organs.feed.stopping.is_set():
                    raise HubStopping("this worker stops; continue from the last checkpoint")
                elif self._clock() >= silent:
                    if subscription.whole:
                        await self._end_transaction()
                        self._cursor, self._place = subscription.cursor, None
                    beating = self._reply.heartbeat(self._cursor, self._place)
                    self._bytes += await self._in_time(beating)
                else:
                    continue
                silent = self._clock() + self._every
        finally:
            subscription.close()

    async def _fail(self, error: BaseException) -> None:
        """Store how far the stream got, and tell the client if it still listens."""
        if not self._begun:
            return
        receipt = self._receipt
        receipt.row_count = receipt.record_count = self._rows
        receipt.byte_count = self._bytes
        receipt.sha256, receipt.cursor = self._digest.digest(), self._cursor
        receipt.finish_time = datetime.now(UTC)
        left = isinstance(error, asyncio.CancelledError)
        receipt.reason = _reason_of(error)
        # Everything that was sent has arrived or will, unless the client reads nothing or there is
        # a defect.
        receipt.state = ReceiptState.CANCELLED if left else ReceiptState.FAILED
        if isinstance(error, Refused) and not self._stalled:
            receipt.state = ReceiptState.COMPLETE
        try:
            await self._call.finish(self._finish())
        finally:
            if not left and not self._stalled:
                await self._say_last(error)

    async def _finish(self) -> None:
        try:
            await store_receipt(self._organs.database, self._receipt)
        finally:
            outcome = self._receipt.reason or "OK"
            await self._call.record_end(outcome, self._rows, self._bytes)

    async def _say_last(self, error: BaseException) -> None:
        message = "internal error; search the hub's log for the request id"
        if isinstance(error, Refused):
            message = error.message
        # Before the end of a snapshot there is no checkpoint.
        cursor = self._cursor if self._snapshot is None else (self._place or self._cursor)
        end = End(_reason_of(error), message, cursor, reconcile_of(error), self._receipt)
        try:
            await asyncio.wait_for(self._reply.end(end), LAST_WORD_SECONDS)
        except Exception as exc:  # the client has gone: the status and the receipt remain
            _log.info("end_not_sent", receipt=self._receipt.receipt_id, error=repr(exc))

    async def _send_snapshot(self, snapshot: _Snapshot) -> None:
        held = snapshot.held
        with translate_errors():
            disclosing = self._disclosed(snapshot.frames, held)
            async with held.in_time(), aclosing(disclosing) as disclosed:
                async for frame, permit in disclosed:
                    self._check_going()
                    if permit is None:
                        await self._move_on(frame)
                    else:
                        await self._send(frame, None, permit)
        self._snapshot = None
        await self._stack.aclose()
        self._cursor = snapshot.reading.cursor
        nothing = Frame(b"", 0, b"", {})
        await self._send(nothing, (self._cursor, None), None)

    async def _move_on(self, frame: Frame) -> None:
        """Send the place of a frame without changes."""
        if frame.ends:
            await self._end_transaction()
        assert frame.place is not None, "it holds nothing else"
        self._place = frame.place
        self._bytes += await self._in_time(self._reply.heartbeat(frame.place, frame.place))
        self._call.note_sent(self._rows, self._bytes)

    async def _disclosed(
        self, frames: AsyncGenerator[Frame, None], held: Held
    ) -> AsyncGenerator[tuple[Frame, Permit | None], None]:
        """Frames with their permits, None for a frame without changes.

        While one is being sent, the next one is read, and its audit entry is written. Raises
        RecordUnreadable.
        """

        async def following() -> tuple[Frame, Permit | None] | None:
            async with name_unreadable(lambda: self._find_unreadable(held)):
                frame = await anext(frames, None)
            if frame is None:
                return None
            if not frame.count:
                return frame, None
            return frame, await self._disclosure.records(frame.keys)

        coming = budget.create_task(following())
        try:
            while (found := await self._found(coming)) is not None:
                coming = budget.create_task(following())
                yield found
        finally:
            coming.cancel()
            await asyncio.gather(coming, return_exceptions=True)
            await frames.aclose()

    async def _found(self, coming: asyncio.Task[T]) -> T:
        """What is found next. Heartbeats go out while that takes long, as where the caller may see
        few of many records."""
        silent = self._clock() + self._every
        while not coming.done():
            left = max(0.0, min(silent - self._clock(), LOOK))
            await asyncio.wait([coming], timeout=left)
            self._check_going()
            if self._clock() >= silent and not coming.done():
                beating = self._reply.heartbeat(self._place or self._cursor, self._place)
                self._bytes += await self._in_time(beating)
                silent = self._clock() + self._every
        return coming.result()

    def _check_going(self) -> None:
        self._standings.check()
        if self._organs.feed.stopping.is_set():
            raise HubStopping("this worker stops; continue from the last place")

    async def _find_unreadable(self, held: Held) -> RecordUnreadable | None:
        """An error that names a record of the held state which cannot be sent; None if there is
        none."""
        async with self._organs.database.snapshot() as connection:
            await held.share(connection)
            for _, lens in sorted(self._source.lenses.items()):
                filter = self._wanted.filter
                found = await find_unreadable(connection, lens.view, lens.fields, filter)
                if found is not None:
                    return found
        return None

    async def _send_block(self, block: Block, subscription: Subscriber) -> None:
        subscription.when_ahead(self._disclosure.begin)
        permit = await self._disclosure.block(block)
        self._note_delay(block)
        for i, frame in enumerate(block.frames):
            self._standings.check()
            last = i + 1 == len(block.frames)
            checkpoint = None
            if last and block.checkpoint:
                checkpoint = (block.cursor, block.commit_time)
            await self._send(frame, checkpoint, permit)
        if block.checkpoint:
            self._cursor = block.cursor

    def _note_delay(self, block: Block) -> None:
        """Measure how late changes are that were committed while the stream was open."""
        at, now = block.commit_time, datetime.now(UTC)
        if at is not None and at >= self._opened:
            find_histogram("penstock_feed_delay_seconds").observe(
                max(0.0, (now - at).total_seconds())
            )

    async def _send(
        self,
        frame: Frame,
        checkpoint: tuple[Cursor, datetime | None] | None,
        permit: Permit | None,
    ) -> None:
        if self._source.transaction_boundaries:
            if frame.transaction != self._transaction:
                await self._end_transaction()
            self._transaction = frame.transaction
            self._of_transaction += frame.count
        ends = self._of_transaction if frame.ends else None
        self._bytes += await self._in_time(self._reply.changes(frame, ends, checkpoint, permit))
        self._place = None if checkpoint is not None else (frame.place or self._place)
        if frame.ends:
            self._of_transaction = 0
        self._rows += frame.count
        self._call.note_sent(self._rows, self._bytes)
        self._digest.update(frame.lines)

    async def _end_transaction(self) -> None:
        """Send the end of a transaction whose last changes the caller does not get."""
        if self._of_transaction:
            nothing = Frame(b"", 0, b"", {}, self._transaction)
            sending = self._reply.changes(nothing, self._of_transaction, None, None)
            self._bytes += await self._in_time(sending)
            self._of_transaction = 0

    async def _in_time(self, sending: Coroutine[Any, Any, int]) -> int:
        """Wait for a send. Raises ClientStalled if the client reads nothing for too long."""
        seconds = self._organs.streams.stall_seconds
        try:
            async with asyncio.timeout(seconds):
                return await sending
        except TimeoutError:
            self._stalled = True
            raise ClientStalled(f"the client took no data for {seconds:g} s") from None

    def _new_receipt(self) -> Receipt:
        entry = self._call.entry
        return Receipt(
            receipt_id=new_receipt_id(),
            request_id=entry.request_id,
            consumer_id=entry.consumer_id or "",
            dataset=",".join(sorted(self._source.lenses)),
            format="CHANGES",
            request_digest=b"",
            policy_revision=self._call.policy.revision,
            cursor=None,
            start_time=datetime.now(UTC),
        )


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """A snapshot that is being sent: its state, what reads it, and the frames read."""

    held: Held
    reading: SnapshotFrames
    frames: AsyncGenerator[Frame, None]


def _reason_of(error: BaseException) -> str:
    if isinstance(error, Refused):
        return error.reason
    return "" if isinstance(error, asyncio.CancelledError) else "INTERNAL"
