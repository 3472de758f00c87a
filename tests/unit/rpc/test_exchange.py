"""Waiting for the message of a call."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from google.protobuf.empty_pb2 import Empty

from penstockd.errors import CallTimeout, RequestMalformed
from penstockd.hub import Hub
from penstockd.rpc import exchange
from penstockd.rpc.door import GrpcWire
from penstockd.rpc.exchange import Exchange, Method
from penstockd.rpc.reading import RequestReader


class Context:
    """A transport with this message, or one whose message never arrives."""

    def __init__(self, message: Any, metadata: tuple[tuple[str, str], ...]) -> None:
        self.message, self.metadata = message, metadata

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self.metadata

    def peer(self) -> str:
        return "test"

    async def read(self) -> Any:
        if self.message is None:
            await asyncio.Event().wait()
        return self.message


class Policy:
    class newest:  # an attribute
        revision = 1


class Organs(Hub):
    policy: Any = Policy

    def __init__(self) -> None:
        pass


def begin(message: Any, *metadata: tuple[str, str], public: bool = False) -> Exchange:
    context: Any = Context(message, metadata)
    wire = GrpcWire(RequestReader(Empty, 1000), streams=False)
    return Exchange(Organs(), Method("s", "M", public=public), context, wire)


async def test_the_message_is_what_came() -> None:
    assert await begin(b"m").receive() == b"m"
    with pytest.raises(RequestMalformed):
        await begin(grpc.aio.EOF).receive()


async def test_nobody_is_waited_for_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    get, post = (("x-envoy-original-method", verb) for verb in ("GET", "POST"))
    monkeypatch.setattr(exchange, "OPEN_MESSAGE_SECONDS", 0.0)
    # It begins first, so it would be the first to end.
    known = asyncio.create_task(begin(None, post).receive())
    await asyncio.sleep(0)
    for brief in (begin(None, public=True), begin(None, get)):
        with pytest.raises(CallTimeout):
            await brief.receive()
    assert not known.done(), "a caller with credentials has longer"
    monkeypatch.setattr(exchange, "MESSAGE_SECONDS", 0.0)
    with pytest.raises(CallTimeout):
        await begin(None, post).receive()
    known.cancel()
    await asyncio.gather(known, return_exceptions=True)
