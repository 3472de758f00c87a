"""Hangs methods into a gRPC server, each behind all interceptors."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import DecodeError

from penstockd.commands.context import Hub
from penstockd.rpc.disclosures import ReplyGuard, Undisclosed
from penstockd.rpc.edge import RequestMalformed
from penstockd.rpc.exchange import Exchange, Handler, Method
from penstockd.rpc.interceptors import around
from penstockd.rpc.texts import refuse_null

Deserializer = Callable[[bytes], Any]
Serializer = Callable[[Any], bytes] | None


@dataclass(frozen=True, slots=True)
class Route:
    """A method with its handler and wire forms. A serializer of None sends bytes as they are.

    The handler of a streaming reply sends frames by ``exchange.send`` and returns nothing.
    """

    method: Method
    handler: Handler
    deserialize: Deserializer
    serialize: Serializer = None
    streams_request: bool = False
    streams_reply: bool = False
    #: Whether replies whose form does not tell show no records: documents of the hub's own.
    documents: bool = False


def install(server: grpc.aio.Server, hub: Hub, routes: Iterable[Route]) -> None:
    """Register the routes with the server, one generic handler a service."""
    services: dict[str, dict[str, grpc.RpcMethodHandler[Any, Any]]] = {}
    for route in routes:
        services.setdefault(route.method.service, {})[route.method.name] = _handler(hub, route)
    for service, handlers in services.items():
        server.add_generic_rpc_handlers((_generic(service, handlers),))


def _generic(
    service: str, handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]]
) -> grpc.GenericRpcHandler:
    return grpc.method_handlers_generic_handler(service, dict(handlers))


def _handler(hub: Hub, route: Route) -> grpc.RpcMethodHandler[Any, Any]:
    record, guard = _record_prefix(hub, route.method), _guard(hub, route)

    async def answer(exchange: Exchange) -> Any:
        request = exchange.request
        if route.streams_request:
            request = _each_read(request, record)
        else:
            request = await _read(request, record)
        reply = await route.handler(request, exchange)
        if reply is not None:
            if guard is not None and exchange.call.disclosed is None and guard.shows_records(reply):
                raise Undisclosed(f"{route.method.path} shows records that it did not disclose")
            size = len(reply) if isinstance(reply, bytes) else reply.ByteSize()
            exchange.call.entry.byte_count = size
        await exchange.record()
        return reply

    call = around(answer)

    async def unary(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        return await call(Exchange(hub, route.method, context, request, guard=guard))

    async def stream(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        # Frames are written, not yielded: a cancelled call is cancelled in the handler itself.
        await unary(request, context)

    wire: dict[str, Any] = {
        "request_deserializer": _tolerant(route.deserialize),
        "response_serializer": route.serialize,
    }
    if route.streams_reply:
        return grpc.unary_stream_rpc_method_handler(stream, **wire)
    if route.streams_request:
        return grpc.stream_unary_rpc_method_handler(unary, **wire)
    return grpc.unary_unary_rpc_method_handler(unary, **wire)


def _guard(hub: Hub, route: Route) -> ReplyGuard | None:
    """What watches a route's replies; None if they cannot show records."""
    method = hub.catalog.pool.FindMethodByName(f"{route.method.service}.{route.method.name}")
    guard = ReplyGuard(hub.catalog, method.output_type)
    return None if guard.idle or route.documents else guard


class _Unreadable:
    """Stands for a message that is none, until the call is within its interceptors."""


class _Suspect:
    """A message with a zero byte somewhere: only such a one can hold U+0000 in a text."""

    def __init__(self, message: Any) -> None:
        self.message = message


def _tolerant(deserialize: Deserializer) -> Deserializer:
    """gRPC answers by itself, and with the name of a class, where a message cannot be read."""

    def read(data: bytes) -> Any:
        try:
            message = deserialize(data)
        except DecodeError:
            return _Unreadable()
        return _Suspect(message) if b"\0" in data else message

    return read


async def _read(request: Any, record: str) -> Any:
    """The request. Raises RequestMalformed, and ValueInvalid if a text of it holds U+0000."""
    if isinstance(request, _Suspect):
        request = request.message
        await refuse_null(request, record)
    elif isinstance(request, _Unreadable):
        raise RequestMalformed("the request is not a message of the method's type")
    return request


async def _each_read(requests: AsyncIterator[Any], record: str) -> AsyncIterator[Any]:
    async for request in requests:
        yield await _read(request, record)


def _record_prefix(hub: Hub, method: Method) -> str:
    """Where a request holds the one record it is about, whose fields go by their own names."""
    return f"{hub.catalog[method.dataset].singular}." if method.dataset is not None else ""
