"""A stream that reads its snapshot for too long ends, and reports how to continue."""

from __future__ import annotations

from typing import Any

import asyncpg
import grpc
import pytest

from harness import PATIENCE, RunningHub
from own_worker import Worker, worker
from penstock.api.v1 import customers_service_pb2 as api
from penstock.hub.v1.changes_pb2 import Reconcile

WATCH = "/penstock.api.v1.Customers/WatchCustomers"


def watch_snapshot(served: Worker) -> Any:
    """A stream that begins with a snapshot of all customers."""
    method: Any = served.channel.unary_stream(
        WATCH,
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=api.WatchCustomersResponse.FromString,
    )
    request = api.WatchCustomersRequest(snapshot=True)
    return method(request, metadata=(("x-api-key", served.api_key),), timeout=PATIENCE)


async def test_a_snapshot_that_takes_too_long_ends_with_a_cursor_to_repair_from(
    hub: RunningHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocker = await asyncpg.connect(hub.dsn)
    replies: list[Any] = []
    try:
        async with (
            worker(hub, monkeypatch, snapshot_seconds=0.5) as served,
            blocker.transaction(),
        ):
            # Its records cannot be read, so the snapshot does not end by itself.
            await blocker.execute("LOCK TABLE data.customers IN ACCESS EXCLUSIVE MODE")
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                async for reply in watch_snapshot(served):
                    replies.append(reply)
    finally:
        await blocker.close()
    assert raised.value.code() is grpc.StatusCode.FAILED_PRECONDITION
    assert "kept for 0.5 s at most" in str(raised.value.details())
    print(replies)
    end = replies[-1].end
    assert end.reason == "STATE_GONE"
    assert end.reconcile == Reconcile.REPAIR


async def test_a_snapshot_that_nobody_blocks_comes_to_its_end(
    hub: RunningHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: the same stream, with more time than any machine needs."""
    async with worker(hub, monkeypatch, snapshot_seconds=PATIENCE) as served:
        snapshot, reached = watch_snapshot(served), False
        async for reply in snapshot:
            if reached := reply.HasField("checkpoint"):
                break
        snapshot.cancel()
    assert reached
