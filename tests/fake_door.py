"""The REST door of the miniature worker: it finds methods by their paths, and knows plain JSON."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import grpc
from google.api.httpbody_pb2 import HttpBody
from google.protobuf import json_format
from google.protobuf.message_factory import GetMessageClass
from google.rpc import status_pb2
from grpc_status import rpc_status

from penstock.rest.v1 import rest_pb2
from penstockd.answers.status import status_of
from penstockd.errors import MethodUnknown, Refused, RequestMalformed
from penstockd.installation import read_catalog
from penstockd.rpc.rest.paths import FoundPath, Paths, bound_values
from penstockd.rpc.rest.queries import parse_query, query_reader, split_target

SERVED = ("penstock.api.v1.Customers", "penstock.hub.v1.Auth")


def door_handlers(servicer: Any) -> list[grpc.GenericRpcHandler]:
    """The services of the door, which call the methods of ``servicer``."""
    pool = read_catalog().pool
    paths: Paths[Any] = Paths(
        (method, method) for name in SERVED for method in pool.FindServiceByName(name).methods
    )

    async def call(calls: AsyncIterator[Any], context: Any) -> None:
        metadata = dict(context.invocation_metadata())
        path, query = split_target(metadata["x-envoy-original-path"])
        told = _HttpContext(context)
        try:
            found = paths.find(metadata["x-envoy-original-method"], path)
            if found is None:
                raise MethodUnknown("no such method and path")
            await _serve(servicer, found, query, calls, told)
        except (Refused, json_format.ParseError) as error:
            refused = error if isinstance(error, Refused) else RequestMalformed(str(error))
            status = status_of(refused, metadata["x-request-id"])
            await told.abort_with_status(rpc_status.to_status(status))

    handler: Any = grpc.stream_stream_rpc_method_handler(
        call, rest_pb2.HttpCall.FromString, HttpBody.SerializeToString
    )
    return [
        grpc.method_handlers_generic_handler(service.full_name, {"Call": handler})
        for service in rest_pb2.DESCRIPTOR.services_by_name.values()
    ]


class _HttpContext:
    """The context of a call, whose errors have bodies."""

    def __init__(self, context: Any) -> None:
        self._context = context

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    async def abort_with_status(self, status: Any) -> None:
        found = status_pb2.Status()
        trailers = dict(status.trailing_metadata)
        found.ParseFromString(trailers["grpc-status-details-bin"])
        data = json_format.MessageToJson(found, indent=None).encode()
        await self._context.write(HttpBody(content_type="application/json", data=data))
        await self._context.abort(status.code, status.details)


async def _serve(
    servicer: Any, found: FoundPath[Any], query: str, calls: Any, context: Any
) -> None:
    method = found.target
    handle = getattr(servicer, method.name)
    requests = _requests(found, query, calls)
    reply = handle(requests if method.client_streaming else await anext(requests), context)
    if method.server_streaming:
        async for piece in reply:
            await context.write(piece)
        return
    message = await reply
    if not isinstance(message, HttpBody):
        data = json.dumps(json_format.MessageToDict(message), separators=(",", ":")).encode()
        message = HttpBody(content_type="application/json", data=data)
    await context.write(message)


async def _requests(found: FoundPath[Any], query: str, calls: Any) -> AsyncIterator[Any]:
    """The requests of the method; the query goes with the first."""
    kind = found.target.input_type
    first = True
    async for call in calls:
        body = call.penstock_body
        request: Any = GetMessageClass(kind)()
        if kind.full_name == HttpBody.DESCRIPTOR.full_name:
            request.data = body.data
        elif found.target.client_streaming:
            getattr(request, found.rule.body).data = body.data
        elif found.rule.body:
            held = request if found.rule.body == "*" else getattr(request, found.rule.body)
            json_format.Parse(body.data or b"{}", held)
        if first:
            bound = bound_values(found)
            query_reader(kind, (*bound, found.rule.body)).read(parse_query(query), request)
            for path, value in bound.items():
                *steps, last = path.split(".")
                holder: Any = request
                for step in steps:
                    holder = getattr(holder, step)
                setattr(holder, last, value)
        first = False
        yield request
