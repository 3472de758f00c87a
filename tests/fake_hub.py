"""A miniature worker behind a real Envoy: it answers with the request that it got."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from google.api import httpbody_pb2
from google.protobuf import any_pb2, empty_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from fake_door import door_handlers
from penstock.api.v1 import customers_service_pb2, customers_service_pb2_grpc
from penstock.hub.v1 import auth_pb2_grpc
from penstock.model.v1 import customers_pb2
from penstockd.rpc.sidecar import METHOD, SERVICE, make_check_reply

ROWS = 200_000
"""Rows of the long export, about 5 MB."""


class Keys:
    """A signing key and the tokens that it makes."""

    def __init__(self) -> None:
        self.private = ec.generate_private_key(ec.SECP256R1())

    def jwks(self) -> bytes:
        key = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(self.private.public_key()))
        return json.dumps({"keys": [key | {"kid": "k1", "alg": "ES256", "use": "sig"}]}).encode()

    def token(self, **changes: Any) -> str:
        now = int(time.time())
        claims = {"iss": "penstock", "aud": "penstock", "sub": "crm", "iat": now, "exp": now + 3600}
        claims |= changes
        claims = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(claims, self.private, "ES256", headers={"kid": "k1"})


class FakeHub(
    customers_service_pb2_grpc.CustomersServicer,
    auth_pb2_grpc.AuthServicer,
):
    """Customers and Auth; remembers the metadata of the last call."""

    def __init__(self, keys: Keys) -> None:
        self.keys = keys
        self.metadata: dict[str, str] = {}
        self.calls = 0
        self.checks = 0
        self.slow = asyncio.Event()
        self.uploaded = 0

    def note_call(self, context: Any) -> None:
        self.calls += 1
        self.metadata = {key: str(value) for key, value in context.invocation_metadata()}

    async def GetCustomer(self, request: Any, context: Any) -> customers_pb2.Customer:
        self.note_call(context)
        if request.customer_id == "missing":
            status = status_pb2.Status(code=5, message="no such record")
            detail = any_pb2.Any()
            detail.Pack(error_details_pb2.ErrorInfo(reason="RECORD_NOT_FOUND", domain="penstock"))
            status.details.append(detail)
            await context.abort_with_status(rpc_status.to_status(status))
        if request.customer_id.startswith(("told-", "bare-")):
            await _tell_status(request.customer_id, context)
        if request.customer_id == "slow":
            self.slow.set()
            await asyncio.sleep(1.0)
        return customers_pb2.Customer(customer_id=request.customer_id, name="n" * 2000)

    async def ListCustomers(
        self, request: Any, context: Any
    ) -> customers_service_pb2.ListCustomersResponse:
        self.note_call(context)
        return customers_service_pb2.ListCustomersResponse(next_page_token=request.filter)

    async def UpdateCustomer(self, request: Any, context: Any) -> customers_pb2.Customer:
        self.note_call(context)
        return customers_pb2.Customer(customer_id=request.customer.customer_id)

    async def DeleteCustomer(self, request: Any, context: Any) -> empty_pb2.Empty:
        self.note_call(context)
        return empty_pb2.Empty()

    async def ImportCustomers(
        self, requests: AsyncIterator[Any], context: Any
    ) -> customers_service_pb2.ImportCustomersResponse:
        self.note_call(context)
        async for request in requests:
            self.uploaded += len(request.file.data)
            if request.format == "late":
                await _fail_late(context)
        return customers_service_pb2.ImportCustomersResponse(row_count=self.uploaded)

    async def CreateCustomer(self, request: Any, context: Any) -> customers_pb2.Customer:
        raise NotImplementedError

    async def BatchUpsertCustomers(
        self, request: Any, context: Any
    ) -> customers_service_pb2.BatchUpsertCustomersResponse:
        raise NotImplementedError

    async def ExportCustomers(self, request: Any, context: Any) -> httpbody_pb2.HttpBody:
        raise NotImplementedError

    async def StreamExportCustomers(
        self, request: Any, context: Any
    ) -> AsyncIterator[httpbody_pb2.HttpBody]:
        self.note_call(context)
        if request.format.startswith(("told-", "bare-")):
            await _tell_status(request.format, context)
        yield httpbody_pb2.HttpBody(content_type="text/csv", data=b"customer_id,name\n")
        if request.format == "late":
            trailers = (("x-http-status", "507"),)
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "the disk is full", trailers)
        if request.format == "fail":
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the database went away")
        frame = b"some customer,some name\n" * 1000
        for _ in range(ROWS // 1000):
            yield httpbody_pb2.HttpBody(data=frame)

    def WatchCustomers(
        self, request: Any, context: Any
    ) -> AsyncIterator[customers_service_pb2.WatchCustomersResponse]:
        raise NotImplementedError

    async def ListCustomerChanges(
        self, request: Any, context: Any
    ) -> customers_service_pb2.ListCustomerChangesResponse:
        raise NotImplementedError

    async def DigestCustomers(self, request: Any, context: Any) -> Any:
        raise NotImplementedError

    async def RepairCustomers(self, request: Any, context: Any) -> Any:
        raise NotImplementedError

    async def IssueToken(self, request: httpbody_pb2.HttpBody, context: Any) -> Any:
        self.note_call(context)
        status, body = "200", {"access_token": self.keys.token(), "form": request.data.decode()}
        if b"secret=wrong" in request.data:
            status, body = "401", {"error": "invalid_client"}
        if b"secret=" not in request.data:
            status, body = "400", {"error": "invalid_request"}
        await context.send_initial_metadata(
            [("x-http-status", status), ("cache-control", "no-store")]
        )
        data = json.dumps(body).encode()
        return httpbody_pb2.HttpBody(content_type="application/json", data=data)

    async def GetMetadata(self, request: Any, context: Any) -> httpbody_pb2.HttpBody:
        raise NotImplementedError

    async def GetJwks(self, request: Any, context: Any) -> httpbody_pb2.HttpBody:
        return httpbody_pb2.HttpBody(content_type="application/json", data=self.keys.jwks())


async def _tell_status(wanted: str, context: Any) -> None:
    """End a call with an HTTP status: "told-412" with a body, "bare-412" with trailers alone."""
    way, _, status = wanted.partition("-")
    header = (("x-http-status", status),)
    if way == "told":
        await context.send_initial_metadata(header)
        await context.write(httpbody_pb2.HttpBody(content_type="text/plain", data=b"told"))
    await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "refused", header)


async def _fail_late(context: Any) -> None:
    """Fail once the headers have left."""
    await context.send_initial_metadata(())
    await context.write(httpbody_pb2.HttpBody(content_type="text/plain", data=b"full"))
    trailers = (("x-http-status", "507"),)
    await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "the disk is full", trailers)


def _check_handler(hub: FakeHub) -> grpc.GenericRpcHandler:
    """Tells the sidecar whether a caller is known: one that sends "known"."""

    async def check(request: bytes, context: Any) -> bytes:
        hub.checks += 1
        return make_check_reply(b"known" in request)

    handlers: dict[str, Any] = {METHOD: grpc.unary_unary_rpc_method_handler(check)}
    return grpc.method_handlers_generic_handler(SERVICE, handlers)


@contextlib.asynccontextmanager
async def serve(hub: FakeHub, socket: Path) -> AsyncIterator[health.aio.HealthServicer]:
    """Run a worker on ``socket`` during the block."""
    server = grpc.aio.server(options=[("grpc.max_metadata_size", 64 * 1024)])
    customers_service_pb2_grpc.add_CustomersServicer_to_server(hub, server)
    auth_pb2_grpc.add_AuthServicer_to_server(hub, server)
    healthy = health.aio.HealthServicer()
    await healthy.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(healthy, server)
    server.add_generic_rpc_handlers((_check_handler(hub), *door_handlers(hub)))
    server.add_insecure_port(f"unix:{socket}")
    await server.start()
    try:
        yield healthy
    finally:
        await server.stop(0)


async def main(socket: Path) -> None:
    """Be a worker process, started as the supervisor starts them."""
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    async with serve(FakeHub(Keys()), socket):
        await ended.wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
