"""Hangs methods into a gRPC server, each behind all interceptors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import grpc

from penstockd.commands.context import Hub
from penstockd.rpc.exchange import Exchange, Handler, Method
from penstockd.rpc.interceptors import ORDER

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
    async def unary(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        exchange = Exchange(hub, route.method, context)
        async with AsyncExitStack() as stack:
            for interceptor in ORDER:
                await stack.enter_async_context(interceptor(exchange))
            reply = await route.handler(request, exchange)
            await exchange.record()
        return reply

    async def stream(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        # Frames are written, not yielded: a cancelled call is cancelled in the handler itself.
        await unary(request, context)

    wire: dict[str, Any] = {
        "request_deserializer": route.deserialize,
        "response_serializer": route.serialize,
    }
    if route.streams_reply:
        return grpc.unary_stream_rpc_method_handler(stream, **wire)
    if route.streams_request:
        return grpc.stream_unary_rpc_method_handler(unary, **wire)
    return grpc.unary_unary_rpc_method_handler(unary, **wire)
