"""Declares routes in one way: a service of the protos, and a handler for each of its methods."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from typing import Any

from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor

from penstockd.catalog import Dataset
from penstockd.rpc.door import Route
from penstockd.rpc.exchange import Handler, Method, PublicHandler

#: The message whose stream is a file.
FILE = "google.api.HttpBody"
_PACKAGE = "penstock.api.v1"


def name_service(dataset: Dataset) -> str:
    """The full name of a dataset's service, as the generator makes it."""
    return f"{_PACKAGE}.{''.join(part.capitalize() for part in dataset.name.split('_'))}"


def routes_of(
    service: Any,
    handlers: Mapping[str, Handler],
    *,
    dataset: str | None = None,
    documents: Collection[str] = (),
) -> Iterator[Route]:
    """The routes of a service, by its descriptor. A method without a handler is a defect.

    ``documents`` are the methods whose files show no records.
    """
    for method in service.methods:
        named = _name_method(method, dataset=dataset)
        yield _make_route(method, named, handlers[method.name], documents=method.name in documents)


def public_routes_of(
    service: Any,
    handlers: Mapping[str, PublicHandler],
    *,
    audited: Collection[str] = (),
    documents: Collection[str] = (),
) -> Iterator[Route]:
    """The routes of a service that is open to all; only methods in ``audited`` are audited.

    Otherwise like ``routes_of``.
    """
    for method in service.methods:
        name = method.name
        named = _name_method(method, public=True, audited=name in audited)
        yield _make_route(method, named, handlers[name], documents=name in documents)


def _name_method(method: MethodDescriptor, **known: Any) -> Method:
    streams = bool(method.server_streaming)
    file = streams and method.output_type.full_name == FILE
    service = method.containing_service.full_name
    return Method(service, method.name, streams=streams, sends_file=file, **known)


def _make_route(
    method: MethodDescriptor,
    named: Method,
    handler: Callable[[Any, Any], Awaitable[Any]],
    *,
    documents: bool,
) -> Route:
    # Files and streams are encoded by hand: see frames and feeds.
    raw = method.output_type.full_name == FILE or method.server_streaming
    reply = message_factory.GetMessageClass(method.output_type)
    return Route(
        named,
        handler,
        message_factory.GetMessageClass(method.input_type),
        None if raw else reply.SerializeToString,
        streams_request=method.client_streaming,
        streams_reply=method.server_streaming,
        documents=documents,
    )
