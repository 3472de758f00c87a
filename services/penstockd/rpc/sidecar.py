"""The sidecar's query to the hub whether the credentials of a call are valid.

A body without a stated length has to be buffered until it is complete, so that its size can be
bounded; anybody could fill the sidecar's memory that way. So the sidecar asks before it buffers
such a body of a caller that it does not know (envoy/public/filters.yaml.j2). The answer decides
only that: the call itself is judged, and audited, when it arrives.

The messages are the used parts of ``envoy.service.auth.v3``; names do not travel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from penstockd.answers.edge import UNKNOWN_CALLER
from penstockd.budget import Budget, serve_call
from penstockd.errors import Refused
from penstockd.hub import Hub
from penstockd.rpc.interceptors.auth import find_principal

SERVICE, METHOD = "envoy.service.auth.v3.Authorization", "Check"

_FIELD = descriptor_pb2.FieldDescriptorProto
#: Message -> its fields: name, number, and the message or scalar type.
_MESSAGES: Mapping[str, tuple[tuple[str, int, str], ...]] = {
    "CheckRequest": (("attributes", 1, "Attributes"),),
    "Attributes": (("request", 4, "Request"),),
    "Request": (("http", 2, "HttpRequest"),),
    "HttpRequest": (("headers", 3, "*Header"),),
    "Header": (("key", 1, ""), ("value", 2, "")),
    "CheckResponse": (("ok_response", 3, "OkResponse"),),
    "OkResponse": (("headers", 2, "*HeaderOption"),),
    "HeaderOption": (("header", 1, "Header"),),
}


def _message_class(name: str) -> Any:
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"penstock.sidecar.{name}"))


def _describe_messages() -> descriptor_pool.DescriptorPool:
    file = descriptor_pb2.FileDescriptorProto(
        name="penstock/sidecar.proto", package="penstock.sidecar", syntax="proto3"
    )
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind in fields:
            made = message.field.add(name=field, number=number, label=_FIELD.LABEL_OPTIONAL)
            made.type = _FIELD.TYPE_MESSAGE if kind else _FIELD.TYPE_STRING
            if kind:
                made.type_name = f".penstock.sidecar.{kind.removeprefix('*')}"
            if kind.startswith("*"):
                made.label = _FIELD.LABEL_REPEATED
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool


_POOL = _describe_messages()
_CheckRequest, _CheckResponse = _message_class("CheckRequest"), _message_class("CheckResponse")


def make_check_reply(known: bool) -> bytes:
    """The answer to the sidecar: the call goes on in any case, marked if its caller is unknown."""
    reply = _CheckResponse()
    reply.ok_response.SetInParent()
    if not known:
        header = reply.ok_response.headers.add().header
        header.key, header.value = UNKNOWN_CALLER, "true"
    data: bytes = reply.SerializeToString()
    return data


def install_check(server: grpc.aio.Server, hub: Hub) -> None:
    """Register the method that only the sidecar can call: its public listener does not offer it."""

    async def check(request: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
        known = _is_known(hub, request)
        return make_check_reply(await serve_call(Budget(f"/{SERVICE}/{METHOD}"), known))

    handler: grpc.RpcMethodHandler[Any, Any] = grpc.unary_unary_rpc_method_handler(check)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler(SERVICE, {METHOD: handler}),)
    )


async def _is_known(hub: Hub, request: bytes) -> bool:
    try:
        headers = _CheckRequest.FromString(request).attributes.request.http.headers
        metadata = {header.key: header.value for header in headers}
        return await find_principal(hub, hub.policy.current, metadata) is not None
    except (DecodeError, Refused):
        return False
