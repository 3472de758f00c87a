"""Serves the REST door: finds the method that a call's path names, and calls it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import grpc
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.empty_pb2 import Empty

from penstock.rest.v1 import rest_pb2
from penstockd.hub import Hub
from penstockd.rpc.door import ServedRoute
from penstockd.rpc.rest.media import CSV, JSON, NOTHING, XML
from penstockd.rpc.rest.paths import FoundPath, Paths
from penstockd.rpc.rest.queries import split_target
from penstockd.rpc.rest.tickets import read_ticket, split_ticket
from penstockd.rpc.rest.unknown import UnknownCall, UnknownWire, unknown_route
from penstockd.rpc.rest.wire import PATH, VERB, HttpTarget, RestWire

#: The services of the door, by whether request and reply are streams.
SERVICES: Mapping[tuple[bool, bool], str] = {
    (False, False): "Calls",
    (False, True): "Streams",
    (True, False): "Uploads",
}
_FILE = rest_pb2.DESCRIPTOR


def install_rest(server: grpc.aio.Server, hub: Hub, served: Sequence[ServedRoute]) -> None:
    """Register the door's services with the server."""
    door = RestDoor(hub, served)
    for ways, name in SERVICES.items():
        service = _FILE.services_by_name[name]

        async def call(requests: Any, context: Any, ways: tuple[bool, bool] = ways) -> None:
            await door.serve(requests, context, ways)

        # The reply is written, so that an error can have a body and then its status.
        handler: Any = grpc.stream_stream_rpc_method_handler(call)
        methods = {method.name: handler for method in service.methods}
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(service.full_name, methods),)
        )


class RestDoor:
    """All methods by their paths."""

    def __init__(self, hub: Hub, served: Sequence[ServedRoute]) -> None:
        find = hub.catalog.pool.FindMethodByName
        self.paths: Paths[HttpTarget] = Paths(
            (method, HttpTarget(one, _list_media(hub, one, method), _has_etag(method)))
            for one in served
            for method in [find(f"{one.route.method.service}.{one.route.method.name}")]
        )
        self._unknown = ServedRoute(hub, unknown_route())
        self._heads = {one: _head_of(one) for one in served if one.route.streams_reply}

    async def serve(self, requests: Any, context: Any, ways: tuple[bool, bool]) -> None:
        """Serve a call that came as one with these streams."""
        metadata = dict(context.invocation_metadata() or ())
        target: str = metadata.get(PATH, "")
        if not target:
            await context.abort(grpc.StatusCode.UNIMPLEMENTED, "only the sidecar calls this method")
        path, query = split_target(target)
        verb = metadata.get(VERB, "")
        found = self.paths.find("GET" if verb == "HEAD" else verb, path)
        ticket = ""
        if verb == "GET" and found is not None and found.target.is_feed:
            query, ticket = split_ticket(query)
        served, wire = self._choose(found, verb, path, query, ways)
        if isinstance(wire, RestWire):
            wire.ticket = read_ticket(path, query, ticket, metadata)
        await wire.finish(*await served.serve(requests, context, wire))

    def _choose(
        self,
        found: FoundPath[HttpTarget] | None,
        verb: str,
        path: str,
        query: str,
        ways: tuple[bool, bool],
    ) -> tuple[ServedRoute, RestWire | UnknownWire]:
        """What serves a call, and its wire."""
        if found is None or found.target.ways != ways:
            asked = UnknownCall(verb, path, self.paths, known=found is None)
            return self._unknown, UnknownWire(asked, streams=ways[1])
        served = found.target.served
        if verb == "HEAD" and served.route.streams_reply:
            served = self._heads[served]
        return served, RestWire(found, verb, query)


def _has_etag(method: MethodDescriptor) -> bool:
    """Whether a method's reply is a resource with an etag."""
    return not method.server_streaming and "etag" in method.output_type.fields_by_name


def _list_media(hub: Hub, served: ServedRoute, method: MethodDescriptor) -> Sequence[str]:
    """The media types in which a method replies; () for files and streams."""
    reply, dataset = method.output_type, served.route.method.dataset
    if method.server_streaming or reply.full_name == HttpBody.DESCRIPTOR.full_name:
        return ()
    if reply.full_name == Empty.DESCRIPTOR.full_name:
        return (JSON, NOTHING)
    if dataset is None:
        return (JSON,)
    record = hub.catalog[dataset].message_type.full_name
    if dataset in reply.fields_by_name:
        return (JSON, XML, CSV)  # a page
    return (JSON, XML) if reply.full_name == record else (JSON,)


def _head_of(served: ServedRoute) -> ServedRoute:
    """The route of HEAD where the reply is a stream: the command checks what it checks for GET, and
    starts none (see ``Call.headers_only``)."""
    return ServedRoute(served.hub, replace(served.route, streams_reply=False, documents=True))
