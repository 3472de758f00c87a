"""Registers methods with a gRPC server, each behind all interceptors.

gRPC starts the handler of a unary request only when its message has arrived, so a caller without
credentials could hold a call open for as long as it likes. The door therefore registers every
method as one with a stream of requests: the interceptors run as soon as the headers are there, and
the message is read afterwards (``Exchange.receive``).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import grpc
from google.protobuf.message import Message

from penstockd.budget import CALL_SECONDS, Budget, serve_call
from penstockd.calls import Call
from penstockd.hub import Hub
from penstockd.policy.rendering import Render, render_message
from penstockd.rpc.bounds import MESSAGE, message_limit
from penstockd.rpc.disclosures import ReplyGuard, Undisclosed
from penstockd.rpc.exchange import Exchange, Method, Refusal, Wire
from penstockd.rpc.interceptors import wrap_answer
from penstockd.rpc.reading import RequestReader

Serializer = Callable[[Any], bytes] | None


@dataclass(frozen=True, slots=True)
class Route:
    """A method with its handler and wire forms. A serializer of None sends bytes unchanged.

    ``request`` is the class of the requests, which are read within the bounds of their fields once
    the caller is known. The handler of a streaming reply sends frames by ``call.exchange.send`` and
    returns nothing.
    """

    method: Method
    handler: Callable[[Any, Any], Awaitable[Any]]
    request: type[Message]
    serialize: Serializer = None
    streams_request: bool = False
    streams_reply: bool = False
    #: Whether its files are documents of the hub's own, which show no records.
    documents: bool = False

    @property
    def most_bytes(self) -> int:
        """The most bytes that a request may have."""
        return MESSAGE if self.method.public else message_limit(self.request.DESCRIPTOR)


class ServedRoute:
    """A route as it is served, whatever the transport."""

    def __init__(self, hub: Hub, route: Route) -> None:
        self.hub, self.route = hub, route
        prefix = _record_prefix(hub, route.method)
        self.reader = RequestReader(route.request, route.most_bytes, prefix)
        self.guard = guard_reply(hub, route)
        # A stream ends when its client goes away or stalls, not when it has used CALL_SECONDS.
        self._seconds = None if route.streams_reply else CALL_SECONDS
        self._serve = wrap_answer(self._answer)

    async def serve(self, requests: Any, context: Any, wire: Wire) -> tuple[Exchange, Any]:
        """Serve a call; returns its exchange, and the packed reply of a method without a stream."""
        method = self.route.method
        exchange = Exchange(self.hub, method, context, wire, requests, guard=self.guard)
        reply = await serve_call(Budget(method.path, self._seconds), self._serve(exchange))
        return exchange, reply

    async def _answer(self, exchange: Exchange) -> Any:
        route, guard = self.route, self.guard
        request = await exchange.wire.read(exchange)
        call = exchange.arriving if route.method.public else exchange.call
        if isinstance(call, Call):
            call.headers_only = exchange.wire.headers_only
        reply = await route.handler(request, call)
        if reply is not None:
            if guard is not None and call.disclosed is None and guard.shows_records(reply):
                raise Undisclosed(f"{route.method.path} shows records that it did not disclose")
            reply = await exchange.wire.pack(exchange, reply)
            call.entry.byte_count = 0 if exchange.wire.headers_only else _size_of(reply)
        await exchange.record()
        return reply


class GrpcWire:
    """Calls of gRPC: requests and replies are messages."""

    holds_headers = headers_only = False
    page_format = ""
    ticket = None

    @property
    def render(self) -> Render[Message]:
        """Replies are messages."""
        return render_message

    def __init__(self, reader: RequestReader, *, streams: bool) -> None:
        self._reader, self._streams = reader, streams

    async def read(self, exchange: Exchange) -> Any:
        """The message of the call, or an iterator of its messages."""
        if self._streams:
            return _each_read(self._reader, exchange.requests)
        return await self._reader.read(await exchange.receive())

    async def pack(self, exchange: Exchange, reply: Any) -> Any:
        """The reply itself: the server serialises it."""
        return reply

    async def frame(self, exchange: Exchange, data: bytes) -> bytes:
        """The message itself, which is serialised already."""
        return data

    async def refuse(self, exchange: Exchange, refusal: Refusal) -> NoReturn:
        """End the call with the status, and its details as a trailer."""
        text = refusal.status.message
        await exchange.context.abort(refusal.code, text, tuple(refusal.trailers))


def _size_of(reply: Any) -> int:
    return len(reply) if isinstance(reply, bytes) else int(reply.ByteSize())


def install_routes(server: grpc.aio.Server, served: Iterable[ServedRoute]) -> None:
    """Register the routes with the server, one generic handler for each service."""
    services: dict[str, dict[str, grpc.RpcMethodHandler[Any, Any]]] = {}
    for one in served:
        method = one.route.method
        services.setdefault(method.service, {})[method.name] = _grpc_handler(one)
    for service, handlers in services.items():
        server.add_generic_rpc_handlers((_generic_handler(service, handlers),))


def _generic_handler(
    service: str, handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]]
) -> grpc.GenericRpcHandler:
    return grpc.method_handlers_generic_handler(service, dict(handlers))


def _grpc_handler(served: ServedRoute) -> grpc.RpcMethodHandler[Any, Any]:
    route = served.route
    wire = GrpcWire(served.reader, streams=route.streams_request)

    async def unary(requests: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        exchange, reply = await served.serve(requests, context, wire)
        await exchange.begin_reply()
        return reply

    async def stream(requests: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        # Frames are written, not yielded: a cancelled call is cancelled in the handler itself.
        exchange, _ = await served.serve(requests, context, wire)
        await exchange.begin_reply()

    # Requests arrive as bytes: see ``reading``.
    ways: dict[str, Any] = {"request_deserializer": None, "response_serializer": route.serialize}
    if route.streams_reply:
        return grpc.stream_stream_rpc_method_handler(stream, **ways)
    return grpc.stream_unary_rpc_method_handler(unary, **ways)


def guard_reply(hub: Hub, route: Route) -> ReplyGuard | None:
    """The guard of a route's replies; None if they cannot show records."""
    method = hub.catalog.pool.FindMethodByName(f"{route.method.service}.{route.method.name}")
    guard = ReplyGuard(hub.catalog, method.output_type)
    return None if guard.idle or route.documents else guard


async def _each_read(reader: RequestReader, sent: AsyncIterator[bytes]) -> AsyncIterator[Message]:
    async for data in sent:
        yield await reader.read(data)


def _record_prefix(hub: Hub, method: Method) -> str:
    """The path of the one record that a request is about; errors name the record's fields without
    it."""
    return f"{hub.catalog[method.dataset].singular}." if method.dataset is not None else ""
