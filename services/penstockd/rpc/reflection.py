"""gRPC's reflection, as v1 and as v1alpha: the hub's services, health, and reflection itself.

The two versions have the same messages under other names, so one servicer answers both.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import grpc
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.reflection import aio

_HEALTH = "grpc.health.v1.Health"
_ALPHA, _STABLE = "grpc.reflection.v1alpha", "grpc.reflection.v1"
#: The names of the reflection service.
SERVICES = tuple(f"{package}.ServerReflection" for package in (_STABLE, _ALPHA))


def enable_reflection(
    server: grpc.aio.Server, services: Collection[str], pool: DescriptorPool
) -> None:
    """Describe the services, whose descriptors are in ``pool``, and those of gRPC itself."""
    names = sorted({*services, _HEALTH, *SERVICES})
    servicer = aio.ReflectionServicer(names, pool=_JoinedPools([pool, _own_pool()]))
    handler = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    for name in SERVICES:
        one = grpc.method_handlers_generic_handler(name, {"ServerReflectionInfo": handler})
        server.add_generic_rpc_handlers((one,))


def _own_pool() -> DescriptorPool:
    """The descriptors of gRPC's own services."""
    pool = DescriptorPool()
    for known in (health_pb2, reflection_pb2):
        pool.AddSerializedFile(known.DESCRIPTOR.serialized_pb)
    stable = descriptor_pb2.FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(stable)
    stable.name = "grpc/reflection/v1/reflection.proto"
    stable.package = _STABLE
    for message in stable.message_type:
        for field in message.field:
            if field.type_name:
                field.type_name = _rename_stable(field.type_name)
    for method in stable.service[0].method:
        method.input_type = _rename_stable(method.input_type)
        method.output_type = _rename_stable(method.output_type)
    pool.Add(stable)
    return pool


def _rename_stable(name: str) -> str:
    return name.replace(f".{_ALPHA}.", f".{_STABLE}.")


class _JoinedPools:
    """Several pools as one, as far as a reflection servicer uses a pool."""

    def __init__(self, pools: Sequence[DescriptorPool]) -> None:
        self._pools = pools

    def FindFileByName(self, name: str) -> Any:  # the names of DescriptorPool
        return self._find("FindFileByName", name)

    def FindFileContainingSymbol(self, name: str) -> Any:
        return self._find("FindFileContainingSymbol", name)

    def FindMessageTypeByName(self, name: str) -> Any:
        return self._find("FindMessageTypeByName", name)

    def FindExtensionByNumber(self, message: Any, number: int) -> Any:
        return message.file.pool.FindExtensionByNumber(message, number)

    def FindAllExtensions(self, message: Any) -> Any:
        return message.file.pool.FindAllExtensions(message)

    def _find(self, method: str, name: str) -> Any:
        for pool in self._pools[:-1]:
            try:
                return getattr(pool, method)(name)
            except KeyError:
                continue
        return getattr(self._pools[-1], method)(name)
