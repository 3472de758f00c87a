"""A running export: all matching records, as a file of any size, from one state of the data.

A separate transaction holds the state while the export runs (see ``store.snapshots``), so that
several connections can read it and, if the client's connection breaks, another call can continue.
That call reads and encodes the file from its start and skips the bytes that the client has:
resuming repeats the database's work, but sends nothing twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Protocol

import orjson
import structlog

from penstockd.answers.reasons import REASONS
from penstockd.answers.status import reason_of
from penstockd.audit.given import given_set
from penstockd.calls import Call, Permit
from penstockd.errors import (
    ClientStalled,
    RecordUnreadable,
    Refused,
    ValueInvalid,
)
from penstockd.exports.fitting import refuse_misfits
from penstockd.exports.limits import ExportLimits
from penstockd.exports.opening import (
    Opened,
    OpeningOrgans,
    find_earlier,
    open_export,
    resume_export,
)
from penstockd.exports.pipeline import Encoder, Piece
from penstockd.exports.plan import ExportPlan
from penstockd.exports.receipts import Receipt, ReceiptState, close_receipt
from penstockd.exports.source import choose_source
from penstockd.exports.stall import StallTimer
from penstockd.policy.standing import Standing
from penstockd.policy.unreadable import find_unreadable, name_unreadable
from penstockd.store.database import Connection
from penstockd.store.places import Places

#: When an export of this size or more completes, its end may still be in transit: its state is kept
#: for this many seconds for a client that loses it. Smaller ones are as fast to run again.
LARGE_BYTES, LINGER_SECONDS = 1 << 20, 20.0
#: Seconds that a failed export waits for its client to take the record of the failure.
LAST_WORD_SECONDS = 2.0

_log = structlog.get_logger(__name__)


class ExportOrgans(OpeningOrgans, Protocol):
    """The organs with which exports run."""

    @property
    def exports(self) -> ExportLimits:
        """How many connections read one export, and how long a client may stall."""

    @property
    def places(self) -> Places:
        """Seals cursors, and opens them."""


class ExportReply(Protocol):
    """The receiver of an export."""

    async def begin(self, receipt_id: str, file_name: str) -> None:
        """Called once, just before the first data."""

    async def send(self, data: bytes, content_type: str, permit: Permit) -> None:
        """Some bytes of the file, or of its in-band receipt; returns when the client takes them.

        Of a file without bytes there is one call, with none.
        """

    def end(self, receipt: Receipt) -> None:
        """The outcome, for the trailers. Not called before ``begin``."""


async def run_export(
    organs: ExportOrgans, call: Call, plan: ExportPlan, reply: ExportReply
) -> None:
    """Send the file of a plan to ``reply``; see ``stream_export`` for errors."""
    resumes = plan.export.resume_receipt
    earlier = await find_earlier(organs.database, call, plan, resumes) if resumes else None
    if call.headers_only:
        return
    rule = call.rule(plan.view, plan.target.rule_fields)
    call.entry.shown = rule
    async with AsyncExitStack() as stack:
        connection = await stack.enter_async_context(organs.database.snapshot())
        if earlier is None:
            opened = await open_export(organs, call, plan)
        else:
            opened = await resume_export(organs, call, earlier)
        run = ExportRun(organs, call, plan, reply, opened, rule)
        # From here on the export leaves a receipt of its end, whatever happens to the connection.
        reading = stack.pop_all()
    try:
        async with name_unreadable(run.find_unreadable), reading:
            await run.send_all(connection)
    except BaseException as exc:
        await run.fail(exc)
        raise
    await run.complete()


class ExportRun:
    """One export whose state is held, from the first read to the receipt of its end."""

    def __init__(
        self,
        organs: ExportOrgans,
        call: Call,
        plan: ExportPlan,
        reply: ExportReply,
        opened: Opened,
        rule: bytes,
    ) -> None:
        """``rule`` is the digest of what the plan's View shows (see ``Call.rule``)."""
        self._organs, self._call, self._plan, self._reply = organs, call, plan, reply
        self._opened, self._receipt, self._rule = opened, opened.receipt, rule
        self._standing = Standing(organs.policy, call.policy, call.principal, plan.view)
        self._encoder = Encoder(plan.target.writer, plan.export.resume_offset)
        self._timer = StallTimer(self._standing.check, organs.exports.stall_seconds)
        self._begun = self._disclosing = False
        self._silent = True
        self._sent_rows = self._sent_records = 0
        self._sent_bytes = plan.export.resume_offset

    async def send_all(self, connection: Connection) -> None:
        """Read, encode and send the file. Raises StateGone if that takes too long."""
        held, database = self._opened.held, self._organs.database
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(held.in_time())
            await held.share(connection)
            await refuse_misfits(connection, self._plan)
            connections = [connection]
            if self._plan.read.splittable and not self._plan.export.limit:
                wanted = self._organs.exports.connections
                while len(connections) < wanted and database.spare_snapshots:
                    another = await stack.enter_async_context(database.snapshot())
                    await held.share(another)
                    connections.append(another)
            await choose_source(connections, held, self._plan).send_all(self._encoder, self)
        if self._encoder.skip:
            raise ValueInvalid.of("resume_offset", "is beyond the end of the file")

    async def find_unreadable(self) -> RecordUnreadable | None:
        """The error for a record that no format of the export can contain; None if there is
        none."""
        plan = self._plan
        async with self._organs.database.snapshot() as connection:
            await self._opened.held.share(connection)
            return await find_unreadable(
                connection, plan.view, plan.target.shown, plan.export.filter
            )

    async def fail(self, error: BaseException) -> None:
        """Record how far the export got, and notify the client if it still listens."""
        receipt = self._receipt
        receipt.row_count, receipt.record_count = self._sent_rows, self._sent_records
        receipt.byte_count = self._sent_bytes
        receipt.state = ReceiptState.FAILED
        if isinstance(error, asyncio.CancelledError):
            receipt.state = ReceiptState.CANCELLED
        elif isinstance(error, Refused):
            receipt.reason = error.reason
        else:
            receipt.reason = "INTERNAL"
        seconds = self._organs.snapshots.seconds if _may_resume(error) else 0
        await self._call.finish(self._finish(seconds))
        if self._begun and receipt.state is ReceiptState.FAILED:
            self._reply.end(receipt)
            # A compressed file has no place for a receipt before its end.
            if not self._timer.blocked and not self._plan.export.compression:
                await self._say_in_band(receipt)

    async def complete(self) -> None:
        """Record that everything was sent, and notify the client."""
        receipt = self._receipt
        receipt.state, receipt.sha256 = ReceiptState.COMPLETE, self._encoder.sha256
        receipt.row_count, receipt.record_count = self._encoder.rows, self._encoder.records
        receipt.byte_count = self._encoder.byte_count
        receipt.lossy_cells = dict(self._encoder.writer.lossy_cells)
        large = receipt.byte_count >= LARGE_BYTES
        await self._call.finish(self._finish(LINGER_SECONDS if large else 0))
        await self._begin()
        document = orjson.dumps(receipt.document(self._organs.places))
        if self._plan.export.inline_receipt:
            receipt_line = self._plan.target.writer.receipt(document)
            await self._send_bytes(receipt_line, await self._call.permit(0))
        if self._silent:
            # An empty file has a type, too.
            content_type = self._plan.target.writer.content_type
            await self._reply.send(b"", content_type, await self._call.permit(0))
        self._reply.end(receipt)

    async def _finish(self, keep_seconds: float) -> None:
        """Close the receipt, then keep the state for the client or release it.

        Every export ends here, however it ended, with its receipt, its audit entry
        (``self._call.entry``) and its file (``self._plan.target``) at hand.
        """
        held, receipt, snapshots = self._opened.held, self._receipt, self._organs.snapshots
        receipt.snapshot = held.name if keep_seconds else None
        try:
            await self._opened.durable
            try:
                await close_receipt(self._organs.database, receipt)
            finally:
                await self._record_end()
        except BaseException:
            # A receipt that is left open reads as FAILED once its holder is gone.
            snapshots.drop(held)
            raise
        if keep_seconds:
            lasting = receipt.state is not ReceiptState.COMPLETE
            snapshots.keep(held, seconds=keep_seconds, lasting=lasting)
        else:
            snapshots.release(held)

    async def _record_end(self) -> None:
        """Write the entry with the totals, if anything was sent; other entries name the records."""
        receipt = self._receipt
        complete = receipt.state is ReceiptState.COMPLETE
        if self._begun or complete:
            outcome = "OK" if complete else receipt.reason or "CANCELLED"
            sent = self._count_sent(receipt.record_count, receipt.byte_count)
            await self._call.record_end(outcome, *sent)

    async def disclose(self, pieces: Sequence[Piece]) -> Permit:
        """Make durable which records are in some pieces (see ``pipeline.Gate``)."""
        keys, count = b"".join([p.keys for p in pieces]), sum(p.count for p in pieces)
        given = given_set(self._plan.view.dataset.name, self._rule, count, keys)
        if self._disclosing:
            return await self._call.disclose_part(given)
        # The call's entry names the first records and is durable before the first byte leaves. The
        # entry of the stream's end records how many there are in all.
        self._disclosing = True
        permit = await self._call.permit(count)
        self._call.entry.keys = given.keys
        return permit

    async def send(self, piece: Piece, permit: Permit) -> None:
        """Send a piece (see ``pipeline.Gate``)."""
        await self._send_bytes(piece.data, permit)
        self._sent_rows, self._sent_records = piece.rows, piece.records
        self._sent_bytes += len(piece.data)
        self._call.note_sent(*self._count_sent(self._sent_records, self._sent_bytes))

    def _count_sent(self, records: int, size: int) -> tuple[int, int]:
        """The records and bytes of the file so far without what an earlier call, whose export this
        one resumes, has sent and counted."""
        offset = self._plan.export.resume_offset
        return max(0, records - self._encoder.skipped_records), max(0, size - offset)

    async def _send_bytes(self, data: bytes, permit: Permit) -> None:
        """Send bytes to the client. Raises AccessChanged, also while the client takes nothing, and
        ClientStalled.
        """
        if not data:
            return
        await self._begin()
        self._silent = False
        self._standing.check()
        self._call.adopt_terms(self._organs.policy.current)
        content_type = self._plan.target.writer.content_type
        await self._timer.wait(self._reply.send(data, content_type, permit))

    async def _begin(self) -> None:
        """Before the first byte, wait until the receipt is durable, and send the client its id."""
        if self._begun:
            return
        await asyncio.shield(self._opened.durable)
        self._begun = True
        await self._reply.begin(self._receipt.receipt_id, self._plan.target.writer.file_name)

    async def _say_in_band(self, receipt: Receipt) -> None:
        """End an incomplete file with its receipt, which states that and why the export failed."""
        if not self._plan.export.inline_receipt:
            return
        data = self._plan.target.writer.receipt(orjson.dumps(receipt.document(self._organs.places)))
        if not data:
            return
        try:
            content_type = self._plan.target.writer.content_type
            sending = self._reply.send(data, content_type, await self._call.permit(0))
            await asyncio.wait_for(sending, LAST_WORD_SECONDS)
        # The client is gone: the receipt in the database and the status remain.
        except Exception as exc:
            _log.info("receipt_not_sent", receipt=receipt.receipt_id, error=repr(exc))


def _may_resume(error: BaseException) -> bool:
    """Whether an export that an error ended can continue where it ended: the client or the
    connection broke it off, or the error is temporary."""
    if isinstance(error, asyncio.CancelledError | ClientStalled):
        return True
    return REASONS[reason_of(error)].retry_seconds > 0
