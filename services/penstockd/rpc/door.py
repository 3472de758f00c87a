"""Registers methods with a gRPC server, each behind all interceptors.

gRPC starts the handler of a unary request only when its message has arrived, so a caller without
credentials could hold a call open for as long as it likes. The door therefore registers every
method as one with a stream of requests: the interceptors run as soon as the headers are there, and
the message is read afterwards (``Exchange.receive``).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc
from google.protobuf.message import Message

from penstockd.budget import CALL_SECONDS, Budget, serve_call
from penstockd.hub import Hub
from penstockd.rpc.bindings import Bindings
from penstockd.rpc.bounds import MESSAGE, message_limit
from penstockd.rpc.disclosures import ReplyGuard, Undisclosed
from penstockd.rpc.exchange import Exchange, Method
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


def install_routes(server: grpc.aio.Server, hub: Hub, routes: Iterable[Route]) -> None:
    """Register the routes with the server, one generic handler for each service."""
    services: dict[str, dict[str, grpc.RpcMethodHandler[Any, Any]]] = {}
    for route in routes:
        services.setdefault(route.method.service, {})[route.method.name] = _route_handler(
            hub, route
        )
    for service, handlers in services.items():
        server.add_generic_rpc_handlers((_generic_handler(service, handlers),))


def _generic_handler(
    service: str, handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]]
) -> grpc.GenericRpcHandler:
    return grpc.method_handlers_generic_handler(service, dict(handlers))


def _route_bindings(hub: Hub, route: Route) -> Bindings | None:
    """The fields of the method's messages that REST paths bind; None if they bind nothing."""
    service, name = route.method.service, route.method.name
    try:
        method = hub.catalog.pool.FindMethodByName(f"{service}.{name}")
    except KeyError:  # a method of gRPC itself, or for the sidecar
        return None
    bindings = Bindings(method)
    return bindings if bindings.any else None


def _route_handler(hub: Hub, route: Route) -> grpc.RpcMethodHandler[Any, Any]:
    bindings = _route_bindings(hub, route)
    reader = RequestReader(route.request, route.most_bytes, _record_prefix(hub, route.method))
    # A stream ends when its client goes away or stalls, not when it has used CALL_SECONDS.
    seconds = None if route.streams_reply else CALL_SECONDS
    guard = guard_reply(hub, route)

    async def answer(exchange: Exchange) -> Any:
        if route.streams_request:
            request: Any = _each_read(reader, exchange.requests)
        else:
            request = await reader.read(await exchange.receive())
        if bindings is not None:
            bindings.check(exchange.metadata, request)
        call = exchange.arriving if route.method.public else exchange.call
        reply = await route.handler(request, call)
        if reply is not None:
            if guard is not None and call.disclosed is None and guard.shows_records(reply):
                raise Undisclosed(f"{route.method.path} shows records that it did not disclose")
            size = len(reply) if isinstance(reply, bytes) else reply.ByteSize()
            call.entry.byte_count = size
        await exchange.record()
        return reply

    serve = wrap_answer(answer)

    async def unary(requests: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        exchange = Exchange(hub, route.method, context, requests, guard=guard)
        return await serve_call(Budget(route.method.path, seconds), serve(exchange))

    async def stream(requests: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        # Frames are written, not yielded: a cancelled call is cancelled in the handler itself.
        await unary(requests, context)

    # Requests arrive as bytes: see ``reading``.
    wire: dict[str, Any] = {"request_deserializer": None, "response_serializer": route.serialize}
    if route.streams_reply:
        return grpc.stream_stream_rpc_method_handler(stream, **wire)
    return grpc.stream_unary_rpc_method_handler(unary, **wire)


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
