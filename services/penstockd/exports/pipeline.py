"""COPY -> encoder -> client: the three work at the same time, and none runs far ahead."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, TypeVar

from penstockd import budget
from penstockd.budget import charge_thread, in_thread
from penstockd.calls import Permit
from penstockd.formats import DocumentWriter
from penstockd.native.copy_messages import CopyMessages
from penstockd.native.kernel import Data
from penstockd.store.copyout import TICK, CopyOut, step_back
from penstockd.tasks import next_item

T = TypeVar("T")

#: Pieces that wait for a slow client; with this many, the read from the database waits too.
QUEUE_PIECES = 4
#: The most pieces whose records share one audit entry. Each entry costs a commit.
BATCH_PIECES = 12
#: Seconds that finished pieces wait for others to share their entry.
GATHER_SECONDS = 0.02
#: Bytes of the database's stream that are encoded first, so that the first byte leaves soon.
FIRST_BYTES = 16 * 1024
#: Bytes of the stream that are encoded at once after that.
ENCODE_BYTES = 256 * 1024

#: The fewest bytes in one send; each send costs time on the event loop.
GIVE_BYTES = 192 * 1024
#: The most bytes in one send: QUEUE_PIECES whole row groups of Parquet would be too many.
PIECE_BYTES = 512 * 1024

#: Takes the next bytes of the database's stream.
Take = Callable[[bytes], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True)
class Piece:
    """Some bytes of the file, and how many whole rows, and records, the file has up to the end of
    the piece.

    ``keys`` is the encoded set of ``count`` records: all records in the piece that are in no
    earlier piece's set, and perhaps some that follow.
    """

    data: bytes
    rows: int
    keys: bytes = b""
    count: int = 0
    records: int = 0


class Gate(Protocol):
    """The way out of the hub. Records are in the audit before they leave."""

    async def disclose(self, pieces: Sequence[Piece]) -> Permit:
        """Make durable which records are in some pieces; called in the pieces' order, while
        earlier ones are being sent."""

    async def send(self, piece: Piece, permit: Permit) -> None:
        """Send a piece; returns when the client takes it."""


class Encoder:
    """A writer whose output is counted and hashed. The first ``skip`` bytes are dropped: a client
    that resumes an export has them already. Used by one thread at a time."""

    def __init__(self, writer: DocumentWriter, skip: int = 0) -> None:
        self.writer = writer
        self.byte_count = 0
        self.skip = skip
        #: The records of the bytes that are dropped, as far as these are whole chunks.
        self.skipped_records = 0
        self._cut_rows = self._cut_records = 0
        self._keys: list[bytes] = []
        self._known = self._named = 0
        self._digest = hashlib.sha256()
        self._ending: Iterator[bytes] | None = None

    @property
    def rows(self) -> int:
        """Rows so far."""
        return self.writer.rows

    @property
    def records(self) -> int:
        """Records of these rows, as far as they were counted."""
        return self._known

    @property
    def sha256(self) -> bytes:
        """The digest of all bytes so far, including those skipped."""
        return self._digest.digest()

    def start(self, chunk: Data) -> bytes:
        """The head of the file and the rows of the first bytes of the stream."""
        return self._count_bytes(self.writer.head() + self.writer.feed(chunk))

    def feed(self, chunk: Data) -> bytes:
        """The rows of the next bytes of the stream. Raises FormatError."""
        return self._count_bytes(self.writer.feed(chunk))

    def end(self) -> bytes | None:
        """The next piece of the file's end, None after the last. Raises FormatError."""
        if self._ending is None:
            self._ending = iter(self.writer.ending())
        data = next(self._ending, None)
        return None if data is None else self._count_bytes(data)

    def cut(self, data: bytes) -> Iterator[Piece]:
        """Cut what was encoded since the last call into pieces of at most PIECE_BYTES."""
        before, self._cut_rows = self._cut_rows, self.rows
        # Of a record of which there is no row yet, the writer may know the key already.
        earlier, self._cut_records = self._cut_records, min(self._known, self.rows)
        for at in range(0, len(data), PIECE_BYTES):
            end = at + PIECE_BYTES
            whole = end >= len(data)
            keys, count = self._unnamed()
            rows = self.rows if whole else before
            records = self._cut_records if whole else earlier
            yield Piece(data[at:end], rows, keys, count, records)

    def _unnamed(self) -> tuple[bytes, int]:
        """The set of keys of encoded rows that no piece has named yet, and their number."""
        found, self._keys = self._keys, []
        before, self._named = self._named, self._known
        return b"".join(found), self._named - before

    def _count_bytes(self, data: bytes) -> bytes:
        # Complete the keys in the encoding thread: elsewhere it would wait for the kernel's lock,
        # which is held while rows are encoded.
        keys = self.writer.keys
        keys.complete()
        self._keys += keys.drain()
        self._known = keys.count
        # Hashing releases the interpreter's lock, and runs here outside the event loop's thread.
        self._digest.update(data)
        self.byte_count += len(data)
        if not self.skip:
            return data
        dropped = min(self.skip, len(data))
        self.skip -= dropped
        if dropped == len(data):
            self.skipped_records = min(self._known, self.rows)
        return data[dropped:]


async def pump_pieces(
    read: Callable[[Take], Awaitable[None]],
    encoder: Encoder,
    gate: Gate,
) -> None:
    """Encode what ``read`` reads and pass it to a gate. Raises what any of the three raises.

    However the stream arrives, it is cut at the same places in every run, so that a writer
    produces the same bytes again.
    """
    encoded: asyncio.Queue[Piece] = asyncio.Queue(QUEUE_PIECES)

    async def produce() -> None:
        gathered, enough, encode = bytearray(), FIRST_BYTES, encoder.start

        async def give(work: Callable[[bytes], bytes], start: int, end: int) -> None:
            with memoryview(gathered) as view:
                chunk = bytes(view[start:end])
            for piece in encoder.cut(await in_thread(work, chunk)):
                await encoded.put(piece)

        async def take(chunk: bytes) -> None:
            nonlocal enough, encode
            gathered.extend(chunk)
            given = 0
            while len(gathered) - given >= enough:
                await give(encode, given, given + enough)
                given += enough
                enough, encode = ENCODE_BYTES, encoder.feed
            if given:
                del gathered[:given]

        await read(take)
        await give(encode, 0, len(gathered))
        while (data := await in_thread(encoder.end)) is not None:
            for piece in encoder.cut(data):
                await encoded.put(piece)

    await send_pieces(encoded, produce(), gate, lambda: None)


async def pump_beside(copy: CopyOut, query: str, encoder: Encoder, gate: Gate) -> None:
    """Like ``pump_pieces``, for one COPY that one thread reads and another encodes.

    The event loop only sends.
    """
    encoded: asyncio.Queue[Piece] = asyncio.Queue()
    threads = _Threads(copy, encoder, encoded)
    await send_pieces(encoded, copy.run(query, charge_thread(threads.read)), gate, threads.taken)


class _Threads:
    """Reads a COPY and has it encoded: the next piece is read while the current one is encoded."""

    def __init__(self, copy: CopyOut, encoder: Encoder, encoded: asyncio.Queue[Piece]) -> None:
        self._copy, self._encoder, self._encoded = copy, encoder, encoded
        self._loop = asyncio.get_running_loop()
        self._room = threading.Semaphore(QUEUE_PIECES + BATCH_PIECES)
        self._gathered: list[bytes] = []
        self._start, self._feed = charge_thread(encoder.start), charge_thread(encoder.feed)

    def taken(self) -> None:
        """Make room for a piece, since one is about to be sent: the queue itself has no bound."""
        self._room.release()

    def read(self) -> None:
        """Read, encode and queue everything; the work of the reading thread."""
        copy, encoder = self._copy, self._encoder
        messages = CopyMessages(copy.message, FIRST_BYTES)
        encode: Callable[[Data], bytes] = self._start
        with ThreadPoolExecutor(1, "encoder", step_back) as threads:
            job: Future[bytes] | None = None
            while not copy.done:
                for piece in messages.feed(copy.receive(messages.space())):
                    if job is not None:
                        self._give(job.result(), GIVE_BYTES)
                    job = threads.submit(encode, bytes(piece))
                    if messages.size == FIRST_BYTES:
                        # Do not wait for the next piece, which may take long.
                        self._give(job.result(), 1)
                        job = None
                    messages.size, encode = ENCODE_BYTES, self._feed
            if job is not None:
                self._give(job.result(), GIVE_BYTES)
        self._give(encode(messages.rest()), GIVE_BYTES)
        while (data := encoder.end()) is not None:
            self._give(data, GIVE_BYTES)
        self._give(b"", 1)

    def _give(self, data: bytes, enough: int) -> None:
        """Queue what was encoded, once there is ``enough`` of it. Raises as ``CopyOut.check``."""
        self._gathered.append(data)
        if sum(map(len, self._gathered)) < enough:
            return
        gathered, self._gathered = b"".join(self._gathered), []
        for piece in self._encoder.cut(gathered):
            while not self._room.acquire(timeout=TICK):
                self._copy.check()
            self._loop.call_soon_threadsafe(self._encoded.put_nowait, piece)


#: Pieces, and the task that makes their records durable in the audit.
_Batch: TypeAlias = tuple[asyncio.Task[Permit], Sequence[Piece]]


async def send_pieces(
    encoded: asyncio.Queue[Piece],
    produce: Coroutine[Any, Any, None],
    gate: Gate,
    taken: Callable[[], None],
) -> None:
    """Send pieces from the queue until the producer has ended. Meanwhile later pieces are encoded,
    the audit entry of others is being written to disk, and earlier ones are on their way to the
    client."""
    producing = budget.create_task(produce)
    batches: asyncio.Queue[_Batch] = asyncio.Queue(1)
    disclosing = budget.create_task(_disclose_all(encoded, producing, gate, batches))
    try:
        while not disclosing.done() or not batches.empty():
            try:
                disclosed, pieces = await next_item(batches, disclosing)
            except asyncio.QueueEmpty:
                break
            permit = await disclosed
            for piece in pieces:
                taken()
                await gate.send(piece, permit)
        disclosing.result()
    finally:
        producing.cancel()
        disclosing.cancel()
        await asyncio.gather(producing, disclosing, return_exceptions=True)


async def _disclose_all(
    encoded: asyncio.Queue[Piece],
    producing: asyncio.Task[None],
    gate: Gate,
    batches: asyncio.Queue[_Batch],
) -> None:
    """Disclose the pieces in the queue in batches; the first batch waits for no more pieces."""
    seconds = 0.0
    while not producing.done() or not encoded.empty():
        try:
            pieces = await _gather_pieces(encoded, producing, seconds)
        except asyncio.QueueEmpty:
            break
        seconds = GATHER_SECONDS
        disclosed = budget.create_task(gate.disclose(pieces))
        disclosed.add_done_callback(_retrieve_error)
        await batches.put((disclosed, pieces))
    producing.result()


async def _gather_pieces(
    encoded: asyncio.Queue[Piece], producing: asyncio.Task[None], seconds: float
) -> list[Piece]:
    """The next piece and those that come within ``seconds`` of it, BATCH_PIECES in all at most.

    Raises QueueEmpty, or the producer's error, if no more pieces will come.
    """
    pieces = [await next_item(encoded, producing)]
    deadline = asyncio.get_running_loop().time() + seconds
    while len(pieces) < BATCH_PIECES:
        if not encoded.empty():
            pieces.append(encoded.get_nowait())
            continue
        left = deadline - asyncio.get_running_loop().time()
        if left <= 0 or producing.done():
            break
        # Not by a timeout around get(): a piece that arrived at that moment would be lost.
        getting = asyncio.ensure_future(encoded.get())
        waited = {getting, producing}
        await asyncio.wait(waited, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        if getting.done():
            pieces.append(getting.result())
        else:
            getting.cancel()
    return pieces


def _retrieve_error(task: asyncio.Task[Permit]) -> None:
    """Retrieve the error of an entry that nobody awaits, since its pieces are no longer sent."""
    if not task.cancelled():
        task.exception()
