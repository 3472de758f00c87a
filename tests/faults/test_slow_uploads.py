"""A slow upload keeps no row locked, and an import that takes too long is ended."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import grpc
import pytest

from harness import PATIENCE, RunningHub, new_customer
from own_worker import Worker, worker
from penstock.api.v1 import customers_service_pb2 as api
from penstockd.writes import arrival
from penstockd.writes.imports import BATCH_ROWS

IMPORT = "/penstock.api.v1.Customers/ImportCustomers"
UPDATE = "/penstock.api.v1.Customers/UpdateCustomer"
#: Enough rows for a batch, so that they are written while the rest is still being sent.
ROWS = 2 * BATCH_ROWS
#: Counts the sessions that have locked rows of customers.
WRITERS = """
SELECT count(*) FROM pg_locks
WHERE relation = 'data.customers'::regclass AND mode = 'RowExclusiveLock' AND granted
"""


class SlowUpload:
    """An import of one customer whose client sends the rest when the test tells it to."""

    def __init__(self, served: Worker, key: str, name: str, more: int = 0) -> None:
        """``more`` is the number of other rows that are sent at once."""
        self.go_on = asyncio.Event()
        self._rows = f"customer_id,name\n{key},{name}\n"
        self._more = "".join(f"{uuid.uuid4().hex},x\n" for _ in range(more))
        method: Any = served.channel.stream_unary(
            IMPORT,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=api.ImportCustomersResponse.FromString,
        )
        metadata = (("x-api-key", served.api_key),)
        self.call: Any = method(self._pieces(), metadata=metadata, timeout=PATIENCE)

    async def _pieces(self) -> AsyncIterator[Any]:
        first: Any = api.ImportCustomersRequest(format="CSV")
        first.file.data = self._rows.encode()
        yield first
        if self._more:
            rest: Any = api.ImportCustomersRequest()
            rest.file.data = self._more.encode()
            yield rest
        await self.go_on.wait()


def created(hub: RunningHub) -> str:
    """The key of a customer that belongs to the test."""
    record = new_customer()
    reply = hub.request("POST", "/v1/customers", consumer="admin", json_body=record)
    assert reply.status == 200, reply.text
    return str(record["customerId"])


async def rename(served: Worker, key: str, name: str) -> Any:
    """Change the same row as another consumer."""
    method: Any = served.channel.unary_unary(
        UPDATE,
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=lambda data: data,
    )
    request = api.UpdateCustomerRequest()
    request.customer.customer_id, request.customer.name = key, name
    request.update_mask.paths.append("name")
    metadata = (("x-api-key", served.api_key),)
    return await method(request, metadata=metadata, timeout=PATIENCE)


async def until_writing(dsn: str) -> None:
    """Wait until the import has written its first rows."""
    connection = await asyncpg.connect(dsn)
    try:
        async with asyncio.timeout(PATIENCE):
            while not await connection.fetchval(WRITERS):
                await connection.execute("SELECT pg_sleep(0.02)")
    finally:
        await connection.close()


async def test_a_row_of_a_slow_upload_is_not_locked(
    hub: RunningHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = await asyncio.to_thread(created, hub)
    async with worker(hub, monkeypatch, lock_seconds=0.5) as served:
        slow = SlowUpload(served, key, "slow")
        await rename(served, key, "quick")
        slow.go_on.set()
        assert (await slow.call).updated_count == 1

        # The control: a hub that begins to write at once locks the row for as long as the client
        # takes. The other writer gets a clear error when its time to wait for a lock is over.
        monkeypatch.setattr(arrival, "KEPT_BYTES", 0)
        eager = SlowUpload(served, key, "eager", ROWS)
        await until_writing(hub.dsn)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await rename(served, key, "waits")
        assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "locked" in str(raised.value.details())
        eager.call.cancel()


async def test_an_import_holds_its_rows_for_a_bounded_time(
    hub: RunningHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrival, "KEPT_BYTES", 0)
    key = await asyncio.to_thread(created, hub)
    name = uuid.uuid4().hex
    async with worker(hub, monkeypatch, import_seconds=1.5) as served:
        slow = SlowUpload(served, key, name, ROWS)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await slow.call
        assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        assert "held its rows for 1.5 s" in str(raised.value.details())
        await rename(served, key, "afterwards")
    rows = "SELECT count(*) FROM data.customers WHERE name = $1"
    assert await asyncio.to_thread(hub.sql, rows, name) == [(0,)]


async def test_a_file_that_does_not_come_in_time_locks_nothing(
    hub: RunningHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with worker(hub, monkeypatch, import_seconds=0.5) as served:
        slow = SlowUpload(served, await asyncio.to_thread(created, hub), "never")
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await slow.call
    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert "did not arrive within 0.5 s" in str(raised.value.details())
