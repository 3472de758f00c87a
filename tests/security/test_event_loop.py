"""S9: no call holds the event loop, however large a field of it is.

A worker runs within the test, so that each step of each call on its event loop can be measured, by
the processor's time that it takes: others on the machine do not count. Every repeated, map, string
and bytes field of every method is sent as small as it is usual, as large as it may be, and ten
times as large. A caller beside them is answered all the while.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.message import Message

from fields import Place, all_routes, is_map, is_text, sized_places
from harness import PATIENCE, RunningHub, folder
from penstockd.app import open_hub, worker_organs
from penstockd.budget import Budget
from penstockd.catalog.rules import EXTENSION
from penstockd.config import Settings
from penstockd.organs import Organs
from penstockd.rpc import bounds, door
from penstockd.rpc.door import Route
from penstockd.rpc.exchange import Method
from penstockd.rpc.server import Server

#: All datasets, and sizes up to those of the largest messages.
ALL = bool(os.environ.get("PENSTOCK_S9_ALL"))
#: Datasets whose every field is tried; of the others those of the requests, which are alike.
WHOLE = ("orders", "products")
#: The largest text of a record, and the largest file, in bytes.
MOST = (16 << 20) if ALL else (256 << 10)
#: A field may hold the loop so many times as long as an ordinary one does.
TIMES = 5
#: How often a call that takes too long is tried: the least counts.
TRIES = 3
#: What texts are made of: nothing special, a list, brackets, an expression, not ASCII.
TEXTS = ("x", "a,", "(", "name = 1 AND ", "Ω.")
NEIGHBOUR = "/penstock.hub.v1.Changes/GetChangeLog"


@dataclass
class Worker:
    """A worker within this process, and what its calls take."""

    channel: grpc.aio.Channel
    api_key: str
    budgets: list[Budget] = field(default_factory=list)

    async def call(self, route: Route, request: Message) -> tuple[grpc.StatusCode, float]:
        """How a call ends, and the longest step that it kept the loop for, in seconds."""
        self.budgets.clear()
        code = await self._code(route, request)
        own = [b.longest for b in self.budgets if b.name == route.method.path]
        return code, max(own, default=0.0)

    async def _code(self, route: Route, request: Message) -> grpc.StatusCode:
        kind = f"{'stream' if route.streams_request else 'unary'}_" + (
            "stream" if route.streams_reply else "unary"
        )
        method = getattr(self.channel, kind)(
            route.method.path,
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=lambda data: data,
        )
        given = iter([request]) if route.streams_request else request
        call = method(given, metadata=(("x-api-key", self.api_key),), timeout=PATIENCE)
        try:
            if not route.streams_reply:
                await call
            else:
                await call.read()
                call.cancel()
        except grpc.aio.AioRpcError as error:
            return error.code()
        except asyncio.CancelledError:
            assert call.cancelled()
        return grpc.StatusCode.OK


@contextlib.asynccontextmanager
async def worker(hub: RunningHub, patch: pytest.MonkeyPatch) -> AsyncIterator[Worker]:
    """A worker of the hub's own settings and database, on a socket of its own."""
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    settings = Settings(data_dir=hub.data, port=hub.port, database_url=hub.dsn)
    with folder() as place:
        socket = f"unix:{Path(place) / 's9.sock'}"
        async with open_hub(settings) as organs:
            channel = grpc.aio.insecure_channel(socket, options=options)
            made = Worker(channel, hub.api_key)

            class Recorded(Budget):
                def __init__(self, *arguments: Any) -> None:
                    super().__init__(*arguments)
                    made.budgets.append(self)

            patch.setattr(door, "Budget", Recorded)
            server = Server(organs, socket)
            await server.start()
            running = asyncio.create_task(Organs(worker_organs(organs, server)).run())
            try:
                yield made
            finally:
                await channel.close()
                organs.feed.stop()
                await server.stop(1)
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)


def reference() -> float:
    """What some work takes of this machine's processor, in seconds: 10 ms on a usual one."""
    least = 1.0
    for _ in range(5):
        began = time.thread_time()
        sum(i * i for i in range(150_000))
        least = min(least, time.thread_time() - began)
    return least


def routes() -> list[Route]:
    """Every method, in an order in which none ends what the others need."""
    return sorted(all_routes(), key=lambda r: r.method.path)


def places(route: Route) -> Iterator[Place]:
    """The fields of a method's requests that are tried."""
    for place in sized_places(route):
        in_record = any(bounds.in_record(f) for f in place.path)
        if ALL or not in_record or route.method.dataset in WHOLE:
            yield place


def base(route: Route, place: Place) -> dict[str, Any]:
    """What stands in a request besides, so that the call comes as far as the field."""
    found: dict[str, Any] = {}
    kinds = route.request.DESCRIPTOR.fields_by_name
    if "validate_only" in kinds:
        found["validate_only"] = True
    if (dataset := route.method.dataset) is not None:
        for name, fd in kinds.items():
            inner: Any = fd.message_type
            if inner is not None and bounds.is_record(inner):
                key = {_key(inner): "s9"}
                found[name] = [key] if fd.is_repeated else key
        if route.streams_request:
            found |= {"format": "CSV", "partial": True}
            found["file"] = {"data": f"{dataset[:-1]}_id\n".encode()}
        if "ranges" in kinds:
            found["ranges"] = [{"row_count": 0}]
    if "webhook" in kinds:
        found["webhook"] = {"url": "https://example.com/", "webhook_id": "wh_none"}
    if "role" in kinds:
        found["role"] = {"role_id": "s9"}
    if "consumer" in kinds and kinds["consumer"].message_type is not None:
        found["consumer"] = {"consumer_id": "s9"}
    if "subscription" in kinds and kinds["subscription"].message_type is not None:
        found["subscription"] = {"datasets": ["customers"]}
    if "dataset" in kinds and kinds["dataset"].message_type is None:
        found["dataset"] = "customers"
    top = place.path[0].name
    if len(place.path) == 1 and not place.field.is_repeated:
        found.pop(top, None)
    return found


def _key(record: Any) -> str:
    """The name of a record's key."""
    return next(f.name for f in record.fields if f.name == f"{record.name.lower()}_id")


def limit(place: Place) -> int:
    """The most that a field may hold; of what has no limit, as much as the test sends."""
    fd = place.field
    if bounds.in_record(fd):
        return min(_declared(fd) or MOST, MOST) if is_text(fd) else bounds.limit_of(fd)
    return min(bounds.limit_of(fd), MOST)


def _declared(fd: Any) -> int | None:
    """The longest text that the model allows."""
    extension = fd.containing_type.file.pool.FindExtensionByName(f"{EXTENSION}.field")
    for name, value in _options(fd, extension):
        if name in ("max_len", "max_bytes"):
            return int(value)
    return None


def _options(fd: Any, extension: Any) -> Iterator[tuple[str, int]]:
    from google.protobuf import message_factory

    pool = fd.containing_type.file.pool
    kind = message_factory.GetMessageClass(
        pool.FindMessageTypeByName("google.protobuf.FieldOptions")
    )
    options: Any = kind.FromString(fd.GetOptions().SerializeToString())
    rules = options.Extensions[extension].string
    for found, value in rules.ListFields():
        if isinstance(value, int):
            yield found.name, value


def sizes(place: Place) -> tuple[list[Message], list[Message]]:
    """Requests of a field of ordinary size, and of one that is as large as it may be and larger."""
    given, most = base(place.route, place), limit(place)
    large = [most, min(10 * most, MOST) if is_text(place.field) else 10 * most]
    if is_map(place.field) or place.field.is_repeated:
        return [place.message(1, given)], [place.message(n, given) for n in large]
    texts = []
    for size in large:
        for pattern in TEXTS:
            text: Any = (pattern * (size // len(pattern.encode()) + 1))[:size]
            while len(text.encode()) > size:
                text = text[: len(text) - (len(text.encode()) - size + 1) // 2]
            if place.field.type == place.field.TYPE_BYTES:
                text = given_file(given, pattern, size)
            texts.append(place.message(text, given))
    usual: Any = b"x" if place.field.type == place.field.TYPE_BYTES else "x"
    return [place.message(usual, given)], texts


def given_file(given: dict[str, Any], pattern: str, size: int) -> bytes:
    """A file of equal rows, or in a place that is none so many bytes."""
    head = given.get("file", {}).get("data", b"")
    row = f"{pattern}\n".encode()
    return bytes(head + row * (max(0, size - len(head)) // len(row)))


async def test_no_field_of_any_method_holds_the_loop(
    hub: RunningHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    floor = TIMES * reference()
    slow, defects, tried, answered = [], [], 0, 0
    async with worker(hub, monkeypatch) as served:
        stop = asyncio.Event()
        beside = asyncio.create_task(_neighbour(served, stop))
        for route in routes():
            for place in places(route):
                usual, large = sizes(place)
                least = min([(await served.call(route, usual[0]))[1] for _ in range(1)])
                bound = max(TIMES * least, floor)
                for request in large:
                    tried += 1
                    taken = []
                    while not taken or (min(taken) > bound and len(taken) < TRIES):
                        code, longest = await served.call(route, request)
                        taken.append(longest)
                    if code in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN):
                        defects.append((place.name, code.name))
                    if min(taken) > bound:
                        slow.append((place.name, request.ByteSize(), min(taken), least, code.name))
        stop.set()
        answered = await beside
    print(f"{tried} calls, {answered} of the neighbour; floor {floor * 1000:.0f} ms")
    assert not defects
    assert not slow, "\n".join(map(str, slow))
    assert tried > 1000 and answered > 100


async def _neighbour(served: Worker, stop: asyncio.Event) -> int:
    """Small calls of another kind, one after the other; how many were answered, which is all."""
    route = next(r for r in all_routes() if r.method.path == NEIGHBOUR)
    count = 0
    while not stop.is_set():
        assert await served._code(route, route.request()) is grpc.StatusCode.OK
        count += 1
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), 0.05)
    return count


async def test_a_handler_that_blocks_is_caught(
    hub: RunningHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control: what is measured tells a handler that works without a pause."""
    route = next(r for r in all_routes() if r.method.path == NEIGHBOUR)

    async def blocks(request: Any, exchange: Any) -> Any:
        end = time.thread_time() + 2 * TIMES * reference()
        while time.thread_time() < end:
            pass
        raise ValueError("blocked long enough")

    bad = Route(Method(*route.method.path[1:].split("/")), blocks, route.request, route.serialize)
    monkeypatch.setattr("penstockd.rpc.server.hub_routes", lambda: [bad])
    async with worker(hub, monkeypatch) as served:
        code, longest = await served.call(bad, bad.request())
    assert code is grpc.StatusCode.INTERNAL
    assert longest > TIMES * reference()
