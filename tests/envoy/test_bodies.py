"""Bodies of calls: which ones the sidecar buffers, for whom, and how large they may be."""

from __future__ import annotations

import contextlib
import io
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import grpc
import pytest
from google.api import httpbody_pb2

from door import Door
from http2 import DATA, connected, frame
from penstock.hub.v1 import auth_pb2_grpc
from penstockd.answers.edge import UNKNOWN_CALLER

from .test_held_streams import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

#: The most bytes in the body of one call.
MOST = 16 << 20
KNOWN, STRANGER = {"x-api-key": "known"}, {"x-api-key": "stranger"}
PATH = "/v1/customers/c1"


async def pieces(size: int) -> AsyncIterator[bytes]:
    """The JSON of a customer with a name of that many bytes, sent without a length."""
    yield b'{"name":"'
    for _ in range(size // 65536):
        yield b"n" * 65536
    yield b'n"}'


async def patch(door: Door, body: Any, headers: dict[str, str]) -> int:
    sent = {"content-type": "application/json", **headers}
    return (await door.call("PATCH", PATH, data=body, headers=sent))[0]


async def test_the_hub_is_asked_about_bodies_of_unstated_length_alone(door: Door) -> None:
    bearer = {"authorization": f"Bearer {door.keys.token()}"}
    for headers in (bearer, KNOWN, STRANGER, {}):
        assert await patch(door, b'{"name":"n"}', headers) == 200
        assert (await door.call("GET", PATH, headers=headers))[0] == 200
    assert await patch(door, pieces(0), bearer) == 200
    assert door.hub.checks == 0
    for number, headers in enumerate((KNOWN, STRANGER, {}), 1):
        assert await patch(door, pieces(0), headers) == 200
        assert door.hub.checks == number
        # Only the hub reports that a caller is unknown.
        assert (UNKNOWN_CALLER in door.hub.metadata) is (headers is not KNOWN)
    assert await patch(door, pieces(0), KNOWN | {UNKNOWN_CALLER: "true"}) == 200
    assert door.hub.checks == 4 and UNKNOWN_CALLER not in door.hub.metadata


async def test_a_body_is_bounded_whether_or_not_it_states_its_length(door: Door) -> None:
    bearer = {"authorization": f"Bearer {door.keys.token()}"}
    for headers in (bearer, KNOWN):
        assert await patch(door, pieces(3_000_000), headers) == 200
        # The sidecar may have answered and closed before everything is sent.
        with contextlib.suppress(aiohttp.ClientError):
            assert await patch(door, pieces(MOST + 65536), headers) == 413
    calls = door.hub.calls
    for headers in (bearer, KNOWN):
        with contextlib.suppress(aiohttp.ClientError):
            assert await patch(door, io.BytesIO(bytes(MOST + 65536)), headers) == 413
    assert door.hub.calls == calls


async def test_a_body_is_no_longer_than_it_says(door: Door) -> None:
    async with connected(door.envoy.config.port) as connection:
        connection.begin(1, PATH, "PATCH", content_type="application/json", content_length="12")
        connection.writer.write(frame(DATA, 0, 1, b'{"name":"n"}' * 10))
        await until(lambda: 1 in connection.reset or connection.closed)
    assert door.hub.calls == 0


async def test_what_is_open_to_all_takes_small_messages(door: Door) -> None:
    form = b"secret=" + b"x" * 20_000
    assert (await door.call("POST", "/oauth2/token", data=form))[0] == 413
    assert (await door.call("POST", "/oauth2/token", data=form[:9000]))[0] == 200
    async with grpc.aio.insecure_channel(f"127.0.0.1:{door.envoy.config.port}") as channel:
        stub: Any = auth_pb2_grpc.AuthStub(channel)
        await stub.IssueToken(httpbody_pb2.HttpBody(data=form[:9000]))
        calls = door.hub.calls
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.IssueToken(httpbody_pb2.HttpBody(data=form * 4))
    assert door.hub.calls == calls
