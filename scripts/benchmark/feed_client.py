"""A client of feeds in a process of its own: it takes its task as JSON and prints the result."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import uvloop

#: Streams of one connection; Envoy accepts a hundred at once.
PER_CONNECTION = 50
_WATCH = "/penstock.api.v1.Customers/WatchCustomers"


def fields(data: bytes) -> Any:
    """Field numbers and values (as offsets) of the top-level fields of a message."""
    at, size = 0, len(data)
    while at < size:
        tag, at = _varint(data, at)
        assert tag & 7 == 2, "all fields of a stream's message are messages"
        length, at = _varint(data, at)
        yield tag >> 3, at, at + length
        at += length


def changes(data: bytes) -> int:
    """How many changes a message begins with, found by their lengths alone."""
    at, count, size = 0, 0, len(data)
    while at < size and data[at] == 0x0A:
        length = data[at + 1]
        at += 2
        if length >= 0x80:
            length = length & 0x7F | data[at] << 7
            at += 1
            assert length < 1 << 14, "a change of this measure is small"
        at += length
        count += 1
    return count


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


class Watch:
    """Streams over a few connections, whose messages arrive as bytes."""

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options
        self._channels: list[grpc.aio.Channel] = []
        self._count = 0

    def open(self, method: str = _WATCH, **request: Any) -> AsyncIterator[bytes]:
        """Open one more stream."""
        if self._count % PER_CONNECTION == 0:
            arguments = [
                ("grpc.use_local_subchannel_pool", 1),
                ("grpc.max_receive_message_length", -1),
                ("penstock.connection", self._count),
            ]
            address = f"127.0.0.1:{self._options['port']}"
            self._channels.append(grpc.aio.insecure_channel(address, options=arguments))
        self._count += 1
        call = self._channels[-1].unary_stream(method)
        metadata = (("authorization", f"Bearer {self._options['token']}"),)
        return call(_request(**request), metadata=metadata)


def _request(cursor: str = "", batch_size: int = 0, filter: str = "") -> bytes:
    """A WatchCustomersRequest."""
    parts = []
    for tag, text in ((1, cursor), (3, filter)):
        if text:
            data = text.encode()
            assert len(data) < 128
            parts.append(bytes([tag << 3 | 2, len(data)]) + data)
    if batch_size:
        parts.append(bytes([6 << 3, batch_size & 0x7F | 0x80, batch_size >> 7]))
    return b"".join(parts)


async def stamps(options: dict[str, Any], watch: Watch) -> None:
    """Record when each change arrived whose key begins with the prefix."""
    stream = watch.open()
    arrived: dict[str, int] = {}
    prefix = options["prefix"].encode()
    async for data in stream:
        now = time.monotonic_ns()
        for number, at, end in fields(data):
            if number == 4:
                print("ready", flush=True)
            elif number == 1:
                # The operation (two bytes) comes first, then the key.
                assert data[at] == 8 and data[at + 2] == 0x12
                size, begin = _varint(data, at + 3)
                key = data[begin : begin + size]
                if key.startswith(prefix):
                    arrived[key.decode()] = now
                assert begin + size <= end
        if len(arrived) >= options["count"]:
            print(json.dumps(arrived), flush=True)
            return


async def count(options: dict[str, Any], watch: Watch) -> None:
    """Count the changes that arrive within some seconds of the first."""
    total, began, last, seconds = 0, 0.0, 0.0, options["seconds"]
    async for data in watch.open(cursor=options["cursor"]):
        found = 0
        for number, _, _ in fields(data):
            if number == 4:
                print("ready", flush=True)
            found += number == 1
        now = time.monotonic()
        if found and not began:
            began = last = now  # the first changes only mark the start; they are not counted
        elif found:
            total, last = total + found, now
        if began and now - began >= seconds:
            break
    print(json.dumps({"count": total, "seconds": last - began}), flush=True)


async def catch(options: dict[str, Any], watch: Watch) -> None:
    """Measure how long many subscribers take to receive so many changes each.

    One of them counts all; the others receive exactly the same bytes, so they stop at that number
    of bytes.
    """
    wanted, others = options["changes"], options["subscribers"] - 1
    begun = time.monotonic()
    request = {"cursor": options["cursor"], "batch_size": options["batch_size"]}
    size = await _counted(watch, request, wanted)
    if others:
        begun = time.monotonic()
        await asyncio.gather(*(_sized(watch, request, size) for _ in range(options["subscribers"])))
    seconds = time.monotonic() - begun
    print("ready", flush=True)
    total = wanted * options["subscribers"]
    sent = size * options["subscribers"]
    print(json.dumps({"count": total, "seconds": seconds, "bytes": sent}), flush=True)


async def _counted(watch: Watch, request: dict[str, Any], wanted: int) -> int:
    """The number of bytes of so many changes."""
    total = size = 0
    async for data in watch.open(**request):
        found = changes(data)
        total += found
        size += len(data) if found else 0
        if total >= wanted:
            return size
    raise AssertionError("the stream ended")


async def _sized(watch: Watch, request: dict[str, Any], wanted: int) -> None:
    size, first = 0, True
    async for data in watch.open(**request):
        size += 0 if first else len(data)
        first = False
        if size >= wanted:
            return
    raise AssertionError("the stream ended")


async def idle(options: dict[str, Any], watch: Watch) -> None:
    """Hold idle streams, until killed."""
    streams = [
        watch.open(
            f"/penstock.api.v1.{options['dataset'].title()}/Watch{options['dataset'].title()}"
        )
        for _ in range(options["streams"])
    ]
    opened = 0

    async def hold(stream: AsyncIterator[bytes]) -> None:
        nonlocal opened
        first = True
        async for _ in stream:
            if first:
                opened, first = opened + 1, False
                if opened == options["streams"]:
                    print("ready", flush=True)

    await asyncio.gather(*(hold(s) for s in streams))


KINDS = {"stamps": stamps, "count": count, "catch": catch, "idle": idle}


def main() -> None:
    """Run the task that the first argument names."""
    options = json.loads(sys.argv[1])
    uvloop.run(KINDS[options["kind"]](options, Watch(options)))


if __name__ == "__main__":
    main()
