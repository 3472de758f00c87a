"""More calls than a worker can accept at once, and gRPC's own behaviour with them."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_health.v1.health_pb2 import HealthCheckResponse

from harness import PATIENCE, folder
from penstockd.rpc.server import OPTIONS

CALL, HEALTH = "/test/Call", "/grpc.health.v1.Health/Check"
#: More than gRPC queues by itself, which is a thousand.
MANY = 1500


@dataclass
class Served:
    """A client's channel to a server, and the number of calls that the server has accepted."""

    channel: grpc.Channel
    taken: int = 0

    async def take(self, request: bytes, context: Any) -> bytes:
        """Answer a call."""
        self.taken += 1
        return b""

    def send(self, method: str, count: int = 1) -> list[Any]:
        """Make calls from the server's own thread: it accepts none meanwhile."""
        call: Any = self.channel.unary_unary(method)
        return [call.future(b"", timeout=PATIENCE) for _ in range(count)]


@contextlib.asynccontextmanager
async def serving(options: Sequence[tuple[str, int]]) -> AsyncIterator[Served]:
    with folder() as place:
        address = f"unix:{Path(place) / 'calls'}"
        server, health = grpc.aio.server(options=options), health_aio.HealthServicer()
        await health.set("", HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(health, server)
        with grpc.insecure_channel(address) as channel:
            made = Served(channel)
            handlers: dict[str, Any] = {"Call": grpc.unary_unary_rpc_method_handler(made.take)}
            generic = grpc.method_handlers_generic_handler("test", handlers)
            server.add_generic_rpc_handlers((generic,))
            server.add_insecure_port(address)
            await server.start()
            try:
                await asyncio.to_thread(grpc.channel_ready_future(channel).result, PATIENCE)
                yield made
            finally:
                await server.stop(None)


async def ends(calls: Sequence[Any]) -> Counter[str]:
    """The outcomes of calls."""
    return Counter([(await asyncio.to_thread(call.code)).name for call in calls])


async def test_no_call_is_dropped_for_those_before_it() -> None:
    async with serving(OPTIONS) as served:
        assert await ends(served.send(CALL, MANY)) == {"OK": MANY}
    # The negative control: gRPC drops some at random, whoever makes them.
    async with serving(()) as served:
        assert (await ends(served.send(CALL, MANY)))["CANCELLED"] > 0


async def test_health_is_told_before_the_calls_that_wait() -> None:
    """Behind them, a worker would seem to hang, and all its callers would be refused."""
    async with serving(OPTIONS) as served:
        found = []
        for method in (HEALTH, CALL):
            served.taken = 0
            sent, (asked,) = served.send(CALL, MANY), served.send(method)
            while not asked.done():  # noqa: ASYNC110 - what it waits for sets no event
                await asyncio.sleep(0)
            found.append(served.taken)
            assert await ends([*sent, asked]) == {"OK": MANY + 1}
    print(f"of {MANY} calls {found} were taken in before")
    # The negative control: any other call comes after them.
    assert found[0] < 0.5 * MANY and found[1] > 0.9 * MANY
