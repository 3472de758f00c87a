"""Services -> the facts about them that Envoy's configuration needs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any, TypedDict

from google.api import annotations_pb2
from google.api.http_pb2 import HttpRule
from google.protobuf.descriptor import Descriptor, MethodDescriptor, ServiceDescriptor

from penstock.options.v1 import method_pb2

#: A message that stands for a body of any kind.
HTTP_BODY = "google.api.HttpBody"

#: A variable of a path template, such as {name} or {name=pattern}.
_VARIABLE = re.compile(r"{([^}=]+)[^}]*}")


class Inputs(TypedDict):
    """The values that fill the templates under ``envoy/``; every list is sorted."""

    stream_paths: list[str]
    """REST paths whose reply is a stream of bytes."""
    feed_paths: list[str]
    """REST paths whose reply is a stream of messages."""
    upload_paths: list[str]
    """REST paths whose request is a stream."""
    grpc_streams: list[str]
    """gRPC paths of methods whose request or reply is a stream."""
    public_paths: list[str]
    """Paths, REST and gRPC, that need no credentials."""


class RouteError(Exception):
    """The REST paths of the services conflict; the message names the methods."""


def envoy_inputs(services: list[ServiceDescriptor]) -> Inputs:
    """Read the annotations of all services. Raises RouteError."""
    streams: set[str] = set()
    feeds: set[str] = set()
    uploads: set[str] = set()
    grpc_streams: set[str] = set()
    public: set[str] = set()
    owners: dict[tuple[str, str], str] = {}
    for method in (m for service in services for m in service.methods):
        rest_paths = set()
        for verb, path in _routes(method):
            owner = owners.setdefault((verb, _VARIABLE.sub("{}", path)), method.full_name)
            if owner != method.full_name:
                raise RouteError(f"{verb} {path} belongs to {owner} and to {method.full_name}")
            rest_paths.add(path)
            for variable in _VARIABLE.findall(path):
                _check_variable(method, variable)
        if method.server_streaming and method.output_type.full_name == HTTP_BODY:
            streams |= rest_paths
        elif method.server_streaming:
            feeds |= rest_paths
        if method.client_streaming:
            uploads |= rest_paths
        grpc_path = f"/{method.containing_service.full_name}/{method.name}"
        if method.client_streaming or method.server_streaming:
            grpc_streams.add(grpc_path)
        if _option(method, method_pb2.public):
            public |= {*rest_paths, grpc_path}
    return {
        "stream_paths": sorted(streams),
        "feed_paths": sorted(feeds),
        "upload_paths": sorted(uploads),
        "grpc_streams": sorted(grpc_streams),
        "public_paths": sorted(public),
    }


def first_names(services: Iterable[ServiceDescriptor]) -> set[str]:
    """What the REST paths of services have after ``/v1/``, up to the next slash or colon."""
    found = set()
    for service in services:
        for method in service.methods:
            for _, path in _routes(method):
                version, _, rest = path.removeprefix("/").partition("/")
                if version == "v1":
                    found.add(re.split("[/:]", rest)[0])
    return found


def _routes(method: MethodDescriptor) -> Iterator[tuple[str, str]]:
    """Verb and path of each REST route of the method."""
    first: HttpRule = _option(method, annotations_pb2.http)
    for rule in (first, *first.additional_bindings):
        verb = rule.WhichOneof("pattern")
        if verb is None:
            raise RouteError(f"{method.full_name} has no google.api.http path")
        yield _route(rule, verb)


def _route(rule: HttpRule, verb: str) -> tuple[str, str]:
    if verb == "custom":
        return rule.custom.kind, rule.custom.path
    return verb.upper(), getattr(rule, verb)


def _option(method: MethodDescriptor, extension: Any) -> Any:
    return method.GetOptions().Extensions[extension]


def _check_variable(method: MethodDescriptor, variable: str) -> None:
    """Raise RouteError if a variable of a path is not a field of the request."""
    message: Descriptor | None = method.input_type
    for name in variable.split("."):
        if message is None or name not in message.fields_by_name:
            raise RouteError(f"{method.full_name}: the path binds the unknown field '{variable}'")
        message = message.fields_by_name[name].message_type
