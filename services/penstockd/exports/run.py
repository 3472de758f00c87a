"""StreamExport: all records that match, as a file of any size, from one state of the data.

The state is held by a transaction of its own while the export runs (see ``store.snapshots``), so
that several connections can read it and, if the client's connection breaks, another call can go on.
That call reads and encodes the file from its start and keeps back what the client has: to resume
costs the database what was read before, but sends nothing twice.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

import orjson
import structlog

from penstockd.audit.given import given_set
from penstockd.calls import Call, Permit
from penstockd.catalog import Dataset
from penstockd.errors import (
    ClientStalled,
    DatabaseUnavailable,
    ExportNotResumable,
    ReceiptNotFound,
    Refused,
    ValueInvalid,
    Violation,
)
from penstockd.exports.pipeline import Encoder, Piece, Take, pump, pump_beside
from penstockd.exports.ranges import read_ranges
from penstockd.exports.receipts import (
    Receipt,
    State,
    close_receipt,
    find_receipt,
    new_receipt_id,
    open_receipt,
    reopen_receipt,
)
from penstockd.exports.stall import Watch
from penstockd.formats import Writer, writer
from penstockd.hub import Hub
from penstockd.policy.model import Action
from penstockd.policy.read import Export as Read
from penstockd.policy.standing import Standing
from penstockd.policy.view import View
from penstockd.query import parse_fields
from penstockd.store.copyout import CopyOut
from penstockd.store.cursor import Cursor
from penstockd.store.database import Connection
from penstockd.store.snapshots import Held, SnapshotGone
from penstockd.store.sql import apply_settings

#: Of a complete export that is larger than this, the end may still be on its way: its state is
#: kept so many seconds for a client that loses it. A smaller one is as quickly had anew.
LARGE_BYTES, LINGER_SECONDS = 1 << 20, 20.0
#: How long a failed export waits for its client to take the record that says so, in seconds.
LAST_WORD_SECONDS = 2.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Export:
    """What a caller asks of an export, as it wrote it; ``format`` is the name of one there is."""

    format: str
    filter: str = ""
    order_by: str = ""
    fields: str = ""
    limit: int = 0
    compression: str = ""
    spreadsheet_safe: bool = False
    omit_receipt: bool = False
    resume_receipt: str = ""
    resume_offset: int = 0


class Reply(Protocol):
    """Where an export goes."""

    async def begin(self, receipt_id: str, file_name: str) -> None:
        """Told once, just before the first data."""

    async def send(self, data: bytes, content_type: str, permit: Permit) -> None:
        """Some bytes of the file, or of its in-band receipt; returns when the client takes them."""

    def end(self, receipt: Receipt) -> None:
        """How it ended, for the trailers; not called if nothing was begun."""


async def stream_export(
    hub: Hub, call: Call, dataset: Dataset, export: Export, reply: Reply
) -> None:
    """Send the records to ``reply``, all of one state, in key order unless asked otherwise.

    Nothing has been sent when PermissionDenied, FieldUnknown, FilterInvalid, OrderInvalid,
    FormatUnknown, ValueInvalid, ReceiptNotFound or ExportNotResumable is raised; an error after
    that ends the stream and stands in the receipt: ClientStalled, AccessChanged (access was revoked
    or narrowed meanwhile), DatabaseUnavailable.
    """
    plan = _Plan.of(call, dataset, export)
    run = _Run(hub, call, plan, reply)
    if export.resume_receipt:
        await run.find(export.resume_receipt)
    try:
        async with hub.database.snapshot() as connection:
            await run.hold()
            await run.send_all(connection)
    except BaseException as exc:
        await run.fail(exc)
        raise
    await run.complete()


@dataclass(frozen=True, slots=True)
class _Plan:
    """An export, checked: what is read, and what makes a file of it."""

    export: Export
    view: View
    target: Writer
    read: Read
    sql: str
    settings: Mapping[str, str]
    digest: bytes

    @classmethod
    def of(cls, call: Call, dataset: Dataset, export: Export) -> _Plan:
        """The plan of what a caller asks for."""
        view = call.view(dataset, Action.READ)
        call.asked(
            format=export.format,
            filter=export.filter,
            order_by=export.order_by,
            fields=export.fields,
            limit=export.limit,
            compression=export.compression.upper(),
            resume_receipt=export.resume_receipt,
            resume_offset=export.resume_offset,
        )
        for name in ("limit", "resume_offset"):
            if getattr(export, name) < 0:
                raise ValueInvalid(
                    f"{name} is negative", violations=[Violation(name, "is negative")]
                )
        fields = parse_fields(export.fields, view)
        target = writer(
            export.format,
            dataset,
            fields,
            compression=export.compression,
            spreadsheet_safe=export.spreadsheet_safe,
        )
        columns = [target.sql(f, view.column(f)) for f in target.selected]
        read = Read(view, target.selected, columns, filter=export.filter, order_by=export.order_by)
        sql, settings = read.copy(export.limit)
        # The same caller, the same statement with the same masks and rows, the same format: the
        # same file, byte by byte. Policy revisions that change none of it do not matter.
        said = [
            call.entry.consumer_id,
            [f.path for f in fields],
            [export.format, export.compression.upper(), export.spreadsheet_safe],
            sql,
            sorted(settings.items()),
        ]
        digest = hashlib.sha256(orjson.dumps(said)).digest()
        return cls(export, view, target, read, sql, settings, digest)


class _Run:
    """One export under way, from the state it reads to the receipt of its end."""

    def __init__(self, hub: Hub, call: Call, plan: _Plan, reply: Reply) -> None:
        self._hub, self._call, self._plan, self._reply = hub, call, plan, reply
        self._standing = Standing(hub.policy, call.policy, call.principal, plan.view)
        self._encoder = Encoder(plan.target, plan.export.resume_offset)
        self._held: Held | None = None
        self._receipt: Receipt | None = None
        self._durable: asyncio.Task[None] | None = None
        self._watch = Watch(self._standing.check, hub.exports.stall_seconds)
        self._rule = call.rule(plan.view, plan.export.fields)
        call.entry.shown = self._rule
        self._begun = self._disclosing = False
        self._sent_rows, self._sent_bytes = 0, plan.export.resume_offset

    async def find(self, receipt_id: str) -> None:
        """Look up the export that is to be resumed."""
        receipt = await find_receipt(self._hub.database, receipt_id)
        if receipt is None or receipt.consumer_id != self._call.entry.consumer_id:
            raise ReceiptNotFound(f"there is no receipt '{receipt_id[:80]}'")
        if receipt.request_digest != self._plan.digest:
            raise ExportNotResumable(
                "the request is not the one that began the export, or what you may see has"
                " changed; start again"
            )
        self._receipt = receipt

    async def hold(self) -> None:
        """Take hold of the state of the data: of now, or of the export that is resumed."""
        hub, call = self._hub, self._call
        if self._receipt is None:
            self._held = await hub.snapshots.take()
            self._receipt = self._new_receipt(str(self._held.cursor))
            writing = open_receipt(hub.database, self._receipt, self._held)
        else:
            earlier = self._receipt.snapshot
            try:
                if earlier is None:
                    raise SnapshotGone("it was let go")
                cursor = Cursor.parse(self._receipt.cursor)
                self._held = await hub.snapshots.join(earlier, cursor)
            except SnapshotGone as exc:
                raise ExportNotResumable(
                    "the state of the data that the export began with is no longer kept; start"
                    " again"
                ) from exc
            hub.snapshots.forget(earlier)
            writing = reopen_receipt(hub.database, self._receipt, self._held)
        call.entry.receipt_id = self._receipt.receipt_id
        # Beside the read: it must be durable before the first byte leaves, and no sooner.
        self._durable = asyncio.create_task(hub.tasks.run(writing))

    async def send_all(self, connection: Connection) -> None:
        """Read, encode and send the file."""
        assert self._held is not None
        await self._held.share(connection)
        async with AsyncExitStack() as stack:
            connections = [connection]
            if self._plan.read.splittable and not self._plan.export.limit:
                wanted = self._hub.exports.connections - 1
                while len(connections) <= wanted and self._hub.database.spare_snapshots:
                    another = await stack.enter_async_context(self._hub.database.snapshot())
                    await self._held.share(another)
                    connections.append(another)
            await self._pump(connections)
        if self._encoder.skip:
            raise ValueInvalid(
                "resume_offset is beyond the end of the file",
                violations=[Violation("resume_offset", "is beyond the end of the file")],
            )

    async def fail(self, error: BaseException) -> None:
        """Write down how far it came, and tell the client if it still listens."""
        if self._held is None or self._receipt is None:
            return
        receipt = self._receipt
        receipt.row_count, receipt.byte_count = self._sent_rows, self._sent_bytes
        receipt.state = State.FAILED
        if isinstance(error, asyncio.CancelledError):
            receipt.state = State.CANCELLED
        elif isinstance(error, Refused | DatabaseUnavailable):
            receipt.reason = error.reason
        else:
            receipt.reason = "INTERNAL"
        # What the client, or the way to it, has broken off can go on; what went wrong here cannot.
        resumable = receipt.state is State.CANCELLED or isinstance(
            error, ClientStalled | DatabaseUnavailable
        )
        await self._hub.tasks.run(self._finish(self._hub.snapshots.seconds if resumable else 0))
        if self._begun and receipt.state is State.FAILED:
            self._reply.end(receipt)
            # A compressed file has no place for it before its end.
            if not self._watch.blocked and not self._plan.export.compression:
                await self._say_in_band(receipt)

    async def complete(self) -> None:
        """Write down that all was sent, and tell the client."""
        assert self._receipt is not None
        receipt = self._receipt
        receipt.state, receipt.sha256 = State.COMPLETE, self._encoder.sha256
        receipt.row_count, receipt.byte_count = self._encoder.rows, self._encoder.byte_count
        large = receipt.byte_count >= LARGE_BYTES
        await self._hub.tasks.run(self._finish(LINGER_SECONDS if large else 0))
        await self._begin()
        document = orjson.dumps(receipt.document())
        if not self._plan.export.omit_receipt:
            await self._send_bytes(self._plan.target.receipt(document), self._call.permit(0))
        self._reply.end(receipt)

    async def _finish(self, keep_seconds: float) -> None:
        """Bring the receipt to its end, then keep the state for the client or let it go.

        The only place where an export ends, whatever way it ended: with its receipt, its audit
        entry (``self._call.entry``) and its writer (``self._plan.target``) at hand.
        """
        assert self._held is not None and self._receipt is not None
        held, receipt, snapshots = self._held, self._receipt, self._hub.snapshots
        receipt.snapshot = held.name if keep_seconds else None
        try:
            if self._durable is not None:
                await self._durable
            await close_receipt(self._hub.database, receipt)
            if self._begun or receipt.state is State.COMPLETE:
                await self._audit_end(receipt)
        except BaseException:
            # A receipt that stays as it was is read as FAILED once its holder is gone.
            snapshots.drop(held)
            raise
        if keep_seconds:
            lasting = receipt.state is not State.COMPLETE
            snapshots.keep(held, seconds=keep_seconds, lasting=lasting)
        else:
            snapshots.release(held)

    async def _audit_end(self, receipt: Receipt) -> None:
        """Leave the entry of the end: what left the hub in all. Which records, others say."""
        outcome = "OK" if receipt.state is State.COMPLETE else receipt.reason or "CANCELLED"
        entry = self._call.entry.end(outcome, receipt.row_count, receipt.byte_count)
        await self._hub.journal.record(entry)

    def _new_receipt(self, cursor: str) -> Receipt:
        entry = self._call.entry
        return Receipt(
            receipt_id=new_receipt_id(),
            request_id=entry.request_id,
            consumer_id=entry.consumer_id or "",
            dataset=self._plan.view.dataset.name,
            format=self._plan.export.format,
            request_digest=self._plan.digest,
            policy_revision=self._plan.view.revision,
            cursor=cursor,
            start_time=datetime.now(UTC),
        )

    async def _pump(self, connections: list[Connection]) -> None:
        held, plan, first = self._held, self._plan, connections[0]
        if len(connections) > 1:
            assert held is not None
            ranges = functools.partial(read_ranges, connections, held, plan.read)
            await pump(ranges, self._encoder, self)
            return
        await apply_settings(first, plan.settings)
        if CopyOut.possible(first):
            await pump_beside(CopyOut(first), plan.sql, self._encoder, self)
            return

        async def read(take: Take) -> None:
            await first.copy_from_query(plan.sql, output=take, format="binary")

        await pump(read, self._encoder, self)

    async def disclose(self, pieces: Sequence[Piece]) -> Permit:
        """Make durable which records are in some pieces (see ``pipeline.Gate``)."""
        keys, count = b"".join([p.keys for p in pieces]), sum(p.count for p in pieces)
        given = given_set(self._plan.view.dataset.name, self._rule, count, keys)
        if self._disclosing:
            return await self._call.disclose_part(given)
        # The first are told by the entry of the call, which is durable before the first byte. How
        # many there are in all is told by that of the end.
        self._disclosing = True
        self._call.entry.keys = given.keys
        return self._call.permit(count)

    async def send(self, piece: Piece, permit: Permit) -> None:
        """Send a piece (see ``pipeline.Gate``)."""
        await self._send_bytes(piece.data, permit)
        self._sent_rows, self._sent_bytes = piece.rows, self._sent_bytes + len(piece.data)

    async def _send_bytes(self, data: bytes, permit: Permit) -> None:
        """Send what the client is still to be shown. Raises AccessChanged and ClientStalled.

        Both are looked for while it takes nothing, too.
        """
        if not data:
            return
        await self._begin()
        self._standing.check()
        content_type = self._plan.target.content_type
        await self._watch.wait(self._reply.send(data, content_type, permit))

    async def _begin(self) -> None:
        """Before the first byte: the receipt is durable, and the client told its id."""
        if self._begun:
            return
        assert self._durable is not None and self._receipt is not None
        await asyncio.shield(self._durable)
        self._begun = True
        await self._reply.begin(self._receipt.receipt_id, self._plan.target.file_name)

    async def _say_in_band(self, receipt: Receipt) -> None:
        """The last record of a file that is none: it says that the export failed, and why."""
        if self._plan.export.omit_receipt:
            return
        data = self._plan.target.receipt(orjson.dumps(receipt.document()))
        if not data:
            return
        try:
            content_type = self._plan.target.content_type
            sending = self._reply.send(data, content_type, self._call.permit(0))
            await asyncio.wait_for(sending, LAST_WORD_SECONDS)
        except Exception as exc:  # the client has gone: the receipt's row and the status remain
            _log.info("receipt_not_sent", receipt=receipt.receipt_id, error=repr(exc))
