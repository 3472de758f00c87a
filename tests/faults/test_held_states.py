"""A stream that reads its snapshot for too long ends, and says how to go on."""

from __future__ import annotations

from typing import Any

import asyncpg
import grpc
import pytest

from harness import PATIENCE, RunningHub
from own_worker import worker
from penstock.api.v1 import customers_service_pb2 as api
from penstock.hub.v1.changes_pb2 import Reconcile

WATCH = "/penstock.api.v1.Customers/WatchCustomers"


async def test_a_snapshot_that_takes_too_long_ends_with_a_cursor_to_repair_from(
    hub: RunningHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocker = await asyncpg.connect(hub.dsn)
    replies: list[Any] = []
    try:
        async with worker(hub, monkeypatch, snapshot_seconds=0.5) as served:
            call: Any = served.channel.unary_stream(
                WATCH,
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=api.WatchCustomersResponse.FromString,
            )
            async with blocker.transaction():
                # Its records cannot be read, so the snapshot does not end by itself.
                await blocker.execute("LOCK TABLE data.customers IN ACCESS EXCLUSIVE MODE")
                request = api.WatchCustomersRequest(snapshot=True)
                key = (("x-api-key", hub.api_key),)
                with pytest.raises(grpc.aio.AioRpcError) as raised:
                    async for reply in call(request, metadata=key, timeout=PATIENCE):
                        replies.append(reply)
            assert raised.value.code() is grpc.StatusCode.FAILED_PRECONDITION
            assert "held for 0.5 s at most" in str(raised.value.details())
            print(replies)
            end = replies[-1].end
            assert end.reason == "STATE_GONE"
            assert end.reconcile == Reconcile.REPAIR
            # The control: the same stream comes to the end of its snapshot if nobody blocks it.
            snapshot = call(request, metadata=key, timeout=PATIENCE)
            async for reply in snapshot:
                if reply.HasField("checkpoint"):
                    break
            snapshot.cancel()
    finally:
        await blocker.close()
