"""Exports in this process on a store of its own: several connections, and clients that stop
reading."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

import asyncpg
import pytest

from own_worker import opened_hub
from penstockd.audit.entry import Entry
from penstockd.calls import Call, Permit
from penstockd.catalog import Catalog, FieldClass
from penstockd.commands.stream_export import stream_export
from penstockd.errors import (
    ClientStalled,
    DatabaseUnavailable,
    ExportNotResumable,
    ReceiptNotFound,
    RecordUnreadable,
    StateGone,
    ValueInvalid,
)
from penstockd.exports import ranges
from penstockd.exports.limits import ExportLimits
from penstockd.exports.plan import ExportRequest
from penstockd.exports.receipts import Receipt, ReceiptState, find_receipt
from penstockd.hub import Hub
from penstockd.native.copy_messages import CopyMessages
from penstockd.policy.model import Action, Grant, Mask, Principal
from penstockd.store.copyout import CopyOut
from penstockd.store.snapshots import Snapshots

CUSTOMERS = 3000
FORMATS = ("CSV", "NDJSON", "JSON", "XML")


@dataclass
class Taken:
    """A client that reads everything, or stops after some bytes."""

    still_after: int | None = None
    data: bytearray = field(default_factory=bytearray)
    receipt_id: str = ""
    receipt: Receipt | None = None

    async def begin(self, receipt_id: str, file_name: str) -> None:
        self.receipt_id = receipt_id

    async def send(self, data: bytes, content_type: str, permit: Permit) -> None:
        if self.still_after is not None and len(self.data) >= self.still_after:
            await asyncio.Event().wait()
        self.data += data

    def end(self, receipt: Receipt) -> None:
        self.receipt = receipt


@pytest.fixture
async def hub(store_url: str, catalog: Catalog) -> AsyncIterator[Hub]:
    """The organs of a worker, on some customers, for the roles "all" and "some"."""
    async with opened_hub(store_url) as hub:
        async with hub.database.transaction() as connection:
            await connection.execute(
                "INSERT INTO data.customers (customer_id, name, email, notes)"
                " SELECT md5(n::text), 'Ünï ' || n, n || '@example.com', repeat('x', n % 700)"
                " FROM generate_series(1, $1) AS n",
                CUSTOMERS,
            )
        grants = {
            "all": (grant("all", Mask.CLEAR, ""),),
            "some": (grant("some", Mask.HASH, 'name < "Ünï 2"'),),
        }
        policy = hub.policy
        policy.adopt(replace(policy.newest, grants=grants))
        yield hub


def grant(role: str, email: Mask, rows: str) -> Grant:
    masks = dict.fromkeys(FieldClass, Mask.CLEAR)
    return Grant(role, "customers", frozenset({Action.READ}), masks, {"email": email}, rows)


def call(hub: Hub, role: str = "all", consumer: str = "c") -> Call:
    entry = Entry("r", "/test", consumer_id=consumer)
    return Call(entry, hub.policy.newest, hub, Principal(consumer, "k", frozenset({role})))


async def run(hub: Hub, export: ExportRequest, role: str = "all") -> Taken:
    taken = Taken()
    await stream_export(hub, call(hub, role), hub.catalog["customers"], export, taken)
    return taken


async def on(hub: Hub, connections: int, export: ExportRequest, role: str) -> Taken:
    return await run(replace(hub, exports=ExportLimits(connections)), export, role)


async def test_any_number_of_connections_gives_the_same_file(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranges, "RANGE_KEYS", 170)
    monkeypatch.setattr(ranges, "BLOCK_BYTES", 1000)
    monkeypatch.setattr(ranges, "QUEUE_BLOCKS", 2)
    used: list[int] = []
    read_ranges = ranges.read_ranges

    async def counted(connections: Any, *rest: Any) -> None:
        used.append(len(connections))
        await read_ranges(connections, *rest)

    monkeypatch.setattr("penstockd.exports.source.read_ranges", counted)
    exports = [ExportRequest(f) for f in FORMATS]
    exports += [
        ExportRequest("CSV", filter='name > "Ünï 15"', fields="name,email"),
        ExportRequest("NDJSON", compression="GZIP"),
        ExportRequest("CSV", filter='name = "nobody"'),
    ]
    for role in ("all", "some"):
        for export in exports:
            whole = await on(hub, 1, export, role)
            for connections in (2, 3):
                found = await on(hub, connections, export, role)
                # In-band receipts, which differ only by their id, follow.
                assert whole.receipt is not None and found.receipt is not None
                size = whole.receipt.byte_count
                assert found.data[:size] == whole.data[:size]
                assert found.receipt.sha256 == whole.receipt.sha256
                assert found.receipt.row_count == whole.receipt.row_count
                assert hashlib.sha256(found.data[:size]).digest() == found.receipt.sha256
    assert set(used) == {2, 3} and len(used) == 2 * 2 * len(exports)
    # Only an export in key order can be split into ranges; one with a limit is too small to split.
    before = len(used)
    for export in (ExportRequest("CSV", order_by="name"), ExportRequest("CSV", limit=900)):
        whole = await on(hub, 1, export, "all")
        assert (await on(hub, 3, export, "all")).data == whole.data
    assert len(used) == before


async def test_an_error_of_one_connection_ends_them_all(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranges, "RANGE_KEYS", 100)
    export = ExportRequest("CSV", filter="birth_date < 2000-01-01 OR NOT birth_date < 2000-01-01")
    await on(hub, 3, export, "all")
    spare = hub.database.spare_snapshots
    async with hub.database.transaction() as connection:
        # A value in the last range that no format can print.
        await connection.execute(
            "UPDATE data.customers SET birth_date = '20000-01-01'"
            " WHERE customer_id = (SELECT max(customer_id) FROM data.customers)"
        )
    for connections in (1, 3):
        with pytest.raises(RecordUnreadable, match="birth_date holds 20000-01-01"):
            await on(hub, connections, ExportRequest("CSV"), "all")
    assert hub.database.spare_snapshots == spare > 0


async def test_a_client_that_stands_still_is_ended_and_may_go_on(hub: Hub) -> None:
    impatient = replace(hub, exports=ExportLimits(stall_seconds=0.2))
    export = ExportRequest("NDJSON")
    whole = await run(hub, export)
    client = Taken(still_after=100_000)
    with pytest.raises(ClientStalled):
        await stream_export(impatient, call(hub), hub.catalog["customers"], export, client)
    found = await find_receipt(hub.database, client.receipt_id)
    assert found is not None and client.receipt is not None
    assert (found.state, found.reason) == (ReceiptState.FAILED, "CLIENT_STALLED")
    assert (found.byte_count, found.sha256) == (len(client.data), None)
    async with hub.database.transaction() as connection:
        await connection.execute("DELETE FROM data.customers WHERE name < 'Ünï 5'")
    resumed = replace(export, resume_receipt=client.receipt_id, resume_offset=len(client.data))
    rest = await run(hub, resumed)
    assert client.data + rest.data == whole.data
    assert rest.receipt is not None and whole.receipt is not None
    assert rest.receipt.sha256 == whole.receipt.sha256


async def test_an_export_ends_when_its_state_is_too_old(hub: Hub) -> None:
    short = Snapshots(hub.database, seconds=60, most_seconds=0.5)
    export, client = ExportRequest("NDJSON"), Taken(still_after=100_000)
    spare = hub.database.spare_snapshots
    customers = hub.catalog["customers"]
    try:
        with pytest.raises(StateGone):
            await stream_export(replace(hub, snapshots=short), call(hub), customers, export, client)
        found = await find_receipt(hub.database, client.receipt_id)
        assert found is not None and client.receipt is not None
        assert (found.state, found.reason) == (ReceiptState.FAILED, "STATE_GONE")
        assert found.byte_count == len(client.data) > 0
        resumed = replace(export, resume_receipt=client.receipt_id, resume_offset=len(client.data))
        with pytest.raises(ExportNotResumable):
            await run(hub, resumed)
        assert hub.database.spare_snapshots == spare
        assert short.oldest_seconds == 0
    finally:
        await short.close()


async def test_only_the_same_export_goes_on(hub: Hub) -> None:
    export = ExportRequest("CSV", filter='name != "x"')
    impatient = replace(hub, exports=ExportLimits(stall_seconds=0.1))
    client, dataset = Taken(still_after=1), hub.catalog["customers"]
    with pytest.raises(ClientStalled):
        await stream_export(impatient, call(hub), dataset, export, client)
    resumed = replace(export, resume_receipt=client.receipt_id, resume_offset=len(client.data))
    others = [
        replace(resumed, filter=""),
        replace(resumed, format="JSON"),
        replace(resumed, fields="name"),
        replace(resumed, order_by="name"),
        replace(resumed, limit=5000),
        replace(resumed, compression="GZIP"),
        replace(resumed, spreadsheet_safe=True),
    ]
    for other in others:
        with pytest.raises(ExportNotResumable):
            await run(hub, other)
    with pytest.raises(ExportNotResumable):
        await run(hub, resumed, "some")
    with pytest.raises(ReceiptNotFound):
        await stream_export(hub, call(hub, consumer="d"), dataset, resumed, Taken())
    with pytest.raises(ReceiptNotFound):
        await run(hub, replace(resumed, resume_receipt="r0"))
    with pytest.raises(ValueInvalid):
        await run(hub, replace(resumed, resume_offset=-1))
    with pytest.raises(ValueInvalid, match="beyond"):
        await run(hub, replace(resumed, resume_offset=1 << 40))
    # None of these affected it, except the last, which began and failed: it is over now.
    with pytest.raises(ExportNotResumable):
        await run(hub, resumed)


async def test_a_thread_reads_what_the_driver_would(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[str] = []
    read = CopyOut.run

    async def counted(self: CopyOut, query: str, work: Any) -> None:
        reads.append(query)
        await read(self, query, work)

    monkeypatch.setattr(CopyOut, "run", counted)
    exports = [ExportRequest(f) for f in (*FORMATS, "PARQUET", "ARROW")]
    exports += [
        ExportRequest("CSV", filter='name = "nobody"'),
        ExportRequest("CSV", compression="ZSTD"),
    ]
    beside = [await run(hub, export) for export in exports]
    # With a driver that hides its socket, or under TLS, every export would take the slow way.
    assert len(reads) == len(exports)
    monkeypatch.setattr(CopyOut, "possible", lambda connection: False)
    for export, found in zip(exports, beside, strict=True):
        plain = await run(hub, export)
        assert found.receipt is not None and plain.receipt is not None
        assert found.receipt.sha256 == plain.receipt.sha256
        assert found.receipt.row_count == plain.receipt.row_count
    assert len(reads) == len(exports)
    # Connections that threads have read from serve other exports afterwards.
    async with hub.database.connection() as connection:
        assert await connection.fetchval("SELECT count(*) FROM data.customers") == CUSTOMERS


async def test_what_the_database_says_in_a_copy_is_heard(hub: Hub) -> None:
    async with hub.database.snapshot() as connection:
        with pytest.raises(asyncpg.DivisionByZeroError):
            await read_all(connection, "SELECT 1 / (5000 - n) FROM generate_series(1, 9000) AS n")
        await connection.execute("ROLLBACK; BEGIN")
        await read_all(connection, "SELECT 1")
    with pytest.raises(DatabaseUnavailable):
        async with hub.database.snapshot() as connection:
            pid = connection.get_server_pid()
            reading = asyncio.create_task(read_all(connection, "SELECT pg_sleep(60)"))
            async with hub.database.connection() as other:
                while not await other.fetchval(
                    "SELECT state = 'active' AND query LIKE 'COPY%' FROM pg_stat_activity"
                    " WHERE pid = $1",
                    pid,
                ):
                    pass
                await other.execute("SELECT pg_terminate_backend($1)", pid)
            await reading


@pytest.mark.parametrize("how", ["cancelled", "abandoned"])
async def test_a_read_that_nobody_waits_for_ends(hub: Hub, how: str) -> None:
    with pytest.raises((asyncio.CancelledError, DatabaseUnavailable)):
        async with hub.database.snapshot() as connection:
            begun = asyncio.Event()
            loop = asyncio.get_running_loop()
            copy = CopyOut(connection)

            def work() -> None:
                loop.call_soon_threadsafe(begun.set)
                while not copy.done:
                    copy.receive(memoryview(bytearray(100)))

            reading = asyncio.create_task(copy.run("SELECT pg_sleep(60)", work))
            await begun.wait()
            if how == "cancelled":
                reading.cancel()
            else:
                hub.database.abandon()
            await reading
    for thread in threading.enumerate():
        if thread.name == "copyout":
            thread.join(5)
            assert not thread.is_alive()


async def read_all(connection: Any, query: str) -> None:
    copy = CopyOut(connection)

    def work() -> None:
        messages = CopyMessages(copy.message, 1000)
        while not copy.done:
            for _ in messages.feed(copy.receive(messages.space())):
                pass

    await copy.run(query, work)
