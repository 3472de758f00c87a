"""StreamExport: all records that match, as a file of any size, from one snapshot."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from penstockd.audit.receipt import Receipt, insert_receipt
from penstockd.catalog import Dataset
from penstockd.commands.context import Call, Hub
from penstockd.commands.pipeline import next_item
from penstockd.errors import ClientStalled, ValueInvalid, Violation
from penstockd.formats import Writer, writer
from penstockd.policy.model import Action
from penstockd.policy.read import Export as Read
from penstockd.query import parse_fields
from penstockd.store.database import Connection
from penstockd.store.sql import apply_settings

#: Frames that wait for a slow client before the read from the database waits too.
QUEUE_FRAMES = 4
#: Bytes of the database's stream that are encoded at once.
ENCODE_BYTES = 128 * 1024
#: How long a client may take nothing before its export, which holds a snapshot, is ended.
STALL_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Export:
    """What a caller asks of an export, as it wrote it; ``format`` is the name of one there is."""

    format: str
    filter: str = ""
    order_by: str = ""
    fields: str = ""
    limit: int = 0


async def stream_export(
    hub: Hub,
    call: Call,
    dataset: Dataset,
    export: Export,
    send: Callable[[bytes, str], Awaitable[None]],
) -> None:
    """Send the records to ``send`` in pieces, each with the file's content type.

    All of them are of one snapshot, in key order unless asked otherwise. Nothing has been sent
    when PermissionDenied, FieldUnknown, FilterInvalid, OrderInvalid or ValueInvalid is raised; an
    error after that ends the stream and stands in the receipt.
    """
    view = call.view(dataset, Action.READ)
    call.asked(
        format=export.format,
        filter=export.filter,
        order_by=export.order_by,
        fields=export.fields,
        limit=export.limit,
    )
    if export.limit < 0:
        raise ValueInvalid("limit is negative", violations=[Violation("limit", "is negative")])
    fields = parse_fields(export.fields, view)
    target = writer(export.format, dataset, fields)
    columns = [target.sql(f, view.column(f)) for f in fields]
    read = Read(view, fields, columns, filter=export.filter, order_by=export.order_by)
    sql, settings = read.copy(export.limit)
    sent = 0

    async def send_counted(data: bytes) -> None:
        nonlocal sent
        try:
            await asyncio.wait_for(send(data, target.content_type), STALL_SECONDS)
        except TimeoutError as exc:
            raise ClientStalled(f"the client took no data for {STALL_SECONDS:g} s") from exc
        sent += len(data)

    outcome = "CANCELLED"
    try:
        async with hub.database.snapshot() as connection:
            await apply_settings(connection, settings)
            await _pump(connection, sql, target, send_counted)
        outcome = "OK"
    except Exception:
        outcome = "FAILED"
        raise
    finally:
        receipt = Receipt(call.entry.request_id, target.rows, sent, outcome)
        await hub.tasks.run(insert_receipt(hub.database, receipt))


async def _pump(
    connection: Connection, sql: str, target: Writer, send: Callable[[bytes], Awaitable[None]]
) -> None:
    """COPY -> encoder thread -> client, each working while the others do, none far ahead."""
    encoded: asyncio.Queue[bytes | None] = asyncio.Queue(QUEUE_FRAMES)

    async def read() -> None:
        # The head waits for the first bytes of the read: if that fails, it fails with a status.
        ready, gathered, enough = target.head(), bytearray(), 1

        async def encode() -> None:
            nonlocal ready, gathered, enough
            chunk, gathered = gathered, bytearray()
            data = ready + await asyncio.to_thread(target.feed, chunk)
            # The first bytes go at once; after them it pays to hand over much at a time.
            ready, enough = b"", ENCODE_BYTES
            if data:
                await encoded.put(data)

        async def take(chunk: bytes) -> None:
            gathered.extend(chunk)
            if len(gathered) >= enough:
                await encode()

        await connection.copy_from_query(sql, output=take, format="binary")
        await encode()
        await encoded.put(target.tail())
        await encoded.put(None)

    reading = asyncio.create_task(read())
    try:
        while (data := await next_item(encoded, reading)) is not None:
            if data:
                await send(data)
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
