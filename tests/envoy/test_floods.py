"""S7: floods of frames, and idle connections. The sidecar ends each of them, or it holds little
memory.

``scripts/soak s7`` runs longer tests: PENSTOCK_S7_ROUNDS times as many frames, PENSTOCK_S7_IDLE
idle connections.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import pytest_asyncio

from door import Door, opened
from http2 import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PING,
    PRIORITY,
    RESET,
    SETTINGS,
    WINDOW_UPDATE,
    Connection,
    connected,
    frame,
    header_block,
)

from .test_held_streams import SCRIPT, memory, settled, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROUNDS = int(os.environ.get("PENSTOCK_S7_ROUNDS", "1"))
IDLE = int(os.environ.get("PENSTOCK_S7_IDLE", "300"))
FRAMES = 5_000 * ROUNDS
CONNECTIONS = 4
#: Seconds within which memory must shrink: far fewer than the idle timeout of these tests' sidecar.
SOON, IDLE_ENDS = 60.0, 300
#: The memory that an open connection may hold, and what may remain after it has closed.
BY_CONNECTION = 2 << 20
AFTERWARDS = 16 << 20
GET = header_block("/v1/customers/c1")
POST = header_block("/v1/customers", "POST", content_type="application/json")
#: A header of 4,000 bytes that is stored in the table, and then referred to by one byte each time.
BOMB = b"\x40\x01x\x7f\xa1\x1e" + b"a" * 4000 + b"\xbe" * 12_000


def rapid_resets() -> Iterator[bytes]:
    for stream in range(1, 2 * FRAMES, 2):
        yield frame(HEADERS, END_HEADERS | END_STREAM, stream, GET) + _reset(stream)


def resets_in_batches() -> Iterator[bytes]:
    for first in range(1, 2 * FRAMES, 200):
        batch = range(first, first + 200, 2)
        yield b"".join(frame(HEADERS, END_HEADERS | END_STREAM, s, GET) for s in batch)
        yield b"".join(map(_reset, batch))


def _reset(stream: int) -> bytes:
    return frame(RESET, 0, stream, (8).to_bytes(4, "big"))


def continuations() -> Iterator[bytes]:
    yield frame(HEADERS, END_STREAM, 1, GET)
    for number in range(FRAMES):
        name = b"x-%d" % number
        yield frame(CONTINUATION, 0, 1, b"\x00" + bytes([len(name)]) + name + b"\x01a")


def empty_continuations() -> Iterator[bytes]:
    yield frame(HEADERS, END_STREAM, 1, GET)
    yield from (frame(CONTINUATION, 0, 1) for _ in range(FRAMES))


def pings() -> Iterator[bytes]:
    yield from (frame(PING, 0, 0, bytes(8)) for _ in range(FRAMES))


def settings_frames() -> Iterator[bytes]:
    yield from (frame(SETTINGS, 0, 0) for _ in range(FRAMES))


def priorities() -> Iterator[bytes]:
    yield frame(HEADERS, END_HEADERS, 1, POST)
    yield from (frame(PRIORITY, 0, 1, bytes(5)) for _ in range(FRAMES))


def empty_data() -> Iterator[bytes]:
    yield frame(HEADERS, END_HEADERS, 1, POST)
    yield from (frame(DATA, 0, 1) for _ in range(FRAMES))


def window_updates() -> Iterator[bytes]:
    yield frame(HEADERS, END_HEADERS, 1, POST)
    yield from (frame(WINDOW_UPDATE, 0, 1, (1).to_bytes(4, "big")) for _ in range(FRAMES))


def header_bombs() -> Iterator[bytes]:
    for stream in range(1, 20 * ROUNDS, 2):
        block = GET + BOMB
        yield frame(HEADERS, END_STREAM, stream, block[:16_000])
        yield frame(CONTINUATION, END_HEADERS, stream, block[16_000:])


#: Floods for which the sidecar ends the connection, and floods that it may tolerate.
ENDED = [
    rapid_resets,
    resets_in_batches,
    continuations,
    empty_continuations,
    priorities,
    empty_data,
]
BORNE = [pings, settings_frames, window_updates, header_bombs]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def door() -> AsyncIterator[Door]:
    waits = ("header_seconds", "call_seconds", "stalled_seconds")
    async with opened(**dict.fromkeys(waits, IDLE_ENDS)) as made:
        yield made


async def flood(connection: Connection, frames: Iterator[bytes]) -> None:
    """Send until everything is sent or the sidecar ends the connection."""
    for number, data in enumerate(frames):
        if connection.closed or connection.writer.transport.is_closing():
            return
        connection.writer.write(data)
        if number % 200 == 0:
            with contextlib.suppress(ConnectionError):
                await connection.writer.drain()
            await asyncio.sleep(0)


async def shrunk(door: Door, below: int) -> None:
    """Return once its memory is below a bound. Memory in transit is free soon; memory that a
    connection pins stays until it is idle for longer than this waits, and fails the test."""
    async with asyncio.timeout(SOON):
        while await memory(door) >= below:  # noqa: ASYNC110 - the sidecar announces nothing
            await asyncio.sleep(0.05)


@pytest.mark.parametrize("frames", [*ENDED, *BORNE], ids=lambda f: f.__name__)
async def test_a_flood(door: Door, frames: Callable[[], Iterator[bytes]]) -> None:
    port, before = door.envoy.config.port, await settled(door)
    async with contextlib.AsyncExitStack() as stack:
        flooding = [
            await stack.enter_async_context(connected(port, acknowledging=False))
            for _ in range(CONNECTIONS)
        ]
        running = [asyncio.create_task(flood(c, frames())) for c in flooding]
        token, calls = door.keys.token(), 0
        while not all(task.done() for task in running) or not calls:
            status, _, _ = await door.call("GET", "/v1/customers/c1", token=token)
            assert status == 200
            calls += 1
        await asyncio.gather(*running)
        if frames in ENDED:
            await until(lambda: all(c.closed for c in flooding))
        await shrunk(door, before + CONNECTIONS * BY_CONNECTION)
    status, _, _ = await door.call("GET", "/v1/customers/c1", token=token)
    assert status == 200
    assert await settled(door) - before < AFTERWARDS


async def test_idle_connections_hold_little(door: Door) -> None:
    port, before = door.envoy.config.port, await settled(door)
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(IDLE):
            await stack.enter_async_context(connected(port))
        assert (await settled(door) - before) / IDLE < 100_000
        status, _, _ = await door.call("GET", "/v1/customers/c1", token=door.keys.token())
        assert status == 200


async def test_who_takes_a_byte_at_a_time_is_let_go_at_last() -> None:
    """Such a client is never idle for long, yet its total time is limited."""
    async with (
        opened(stalled_seconds=3600, header_seconds=1) as door,
        connected(door.envoy.config.port, window=0) as slow,
    ):
        slow.request(1, SCRIPT, accept_encoding="identity")
        await until(lambda: slow.answered)
        while not slow.reset:
            slow.writer.write(frame(WINDOW_UPDATE, 0, 1, (1).to_bytes(4, "big")))
            await asyncio.sleep(0.05)
        assert 0 < sum(slow.received.values()) < 1000
