"""A worker within the test's own process, so that tests can measure and break the work of its
calls."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

from harness import PATIENCE, RunningHub, folder
from penstockd import formats
from penstockd.app import make_organs
from penstockd.budget import Budget
from penstockd.calls import Allowance
from penstockd.config import Settings
from penstockd.hub import Hub
from penstockd.installation import open_ring
from penstockd.rpc import door
from penstockd.rpc.door import Route
from penstockd.rpc.server import Server
from penstockd.up import prepare_store
from penstockd.wiring import open_hub, worker_database


@dataclass
class Worker:
    """A worker within this process, and the time that its calls take."""

    channel: grpc.aio.Channel
    api_key: str
    #: Where it listens, for channels of a test's own.
    socket: str = ""
    budgets: list[Budget] = field(default_factory=list)

    async def call(
        self, route: Route, request: Message, **options: Any
    ) -> tuple[grpc.StatusCode, float]:
        """The outcome of a call, and the longest step in seconds for which it blocked the loop."""
        self.budgets.clear()
        code = await self.answer(route, request, **options)
        own = [b.longest for b in self.budgets if b.name == route.method.path]
        return code, max(own, default=0.0)

    def used(self, route: Route) -> float:
        """The processor seconds that the last call used."""
        return sum(b.used for b in self.budgets if b.name == route.method.path)

    async def answer(
        self,
        route: Route,
        request: Message,
        *metadata: tuple[str, str],
        whole: bool = False,
        before: Sequence[Message] = (),
    ) -> grpc.StatusCode:
        """The outcome of a call. Of a stream only the first frame is awaited, unless ``whole`` is
        true: an endless stream must have a reason to end. ``before`` is sent first on a stream of
        requests."""
        kind = f"{'stream' if route.streams_request else 'unary'}_" + (
            "stream" if route.streams_reply else "unary"
        )
        method = getattr(self.channel, kind)(
            route.method.path,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=lambda data: data,
        )
        given = iter([*before, request]) if route.streams_request else request
        call = method(given, metadata=(("x-api-key", self.api_key), *metadata), timeout=PATIENCE)
        try:
            if not route.streams_reply:
                await call
            else:
                while await call.read() is not grpc.aio.EOF and whole:
                    pass
                call.cancel()
        except grpc.aio.AioRpcError as error:
            return error.code()
        except asyncio.CancelledError:
            assert call.cancelled()
        return grpc.StatusCode.OK


@contextlib.asynccontextmanager
async def opened_hub(url: str) -> AsyncIterator[Hub]:
    """The organs of a worker on a database, which is brought to the model."""
    with folder() as data:
        settings = Settings(data_dir=data, database_url=url)
        await prepare_store(settings, url, open_ring(settings))
        async with open_hub(settings, worker_database(settings)) as hub:
            yield hub


@contextlib.asynccontextmanager
async def worker(
    hub: RunningHub,
    patch: pytest.MonkeyPatch,
    *,
    allowance: Allowance | None = None,
    **changes: Any,
) -> AsyncIterator[Worker]:
    """A worker with the hub's own settings, some of them changed, and its database, on a socket of
    its own."""
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    settings = Settings(data_dir=hub.data, port=hub.port, database_url=hub.dsn, **changes)
    formats.load_ahead()
    with folder() as place:
        socket = f"unix:{Path(place) / 'own.sock'}"
        async with open_hub(settings, worker_database(settings)) as opened:
            organs = replace(opened, allowance=allowance)
            channel = grpc.aio.insecure_channel(socket, options=options)
            made = Worker(channel, hub.api_key, socket)

            class Recorded(Budget):
                def __init__(self, *arguments: Any) -> None:
                    super().__init__(*arguments)
                    made.budgets.append(self)

            patch.setattr(door, "Budget", Recorded)
            server = Server(organs, socket)
            await server.start()
            running = asyncio.create_task(
                make_organs(organs, server, settings, Path(place) / "own.sock").run()
            )
            # As a real worker does: otherwise the garbage collector charges calls for all objects
            # of the tests.
            gc.collect()
            gc.freeze()
            try:
                yield made
            finally:
                gc.unfreeze()
                await channel.close()
                organs.feed.stop()
                await server.stop(1)
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
