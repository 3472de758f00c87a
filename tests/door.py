"""The sidecar in a real Envoy, with a miniature worker behind it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import grpc
from google.rpc import status_pb2

from fake_hub import FakeHub, Keys, serve
from harness import PATIENCE, free_port, read_log
from penstock.api.v1 import customers_service_pb2_grpc as api_grpc
from penstockd import resources
from penstockd.node.envoy import Envoy, EnvoyConfig

TEMPLATE = resources.envoy_templates() / "sidecar.yaml.j2"


@dataclass
class Door:
    """The public port with everything behind it."""

    envoy: Envoy
    hub: FakeHub
    keys: Keys
    http: aiohttp.ClientSession
    folder: Path

    async def call(
        self, method: str, path: str, *, token: str | None = None, **options: Any
    ) -> tuple[int, Any, Any]:
        """Status, headers and body (JSON if possible) of one REST call."""
        headers = dict(options.pop("headers", {}))
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        url = self.envoy.config.url + path
        async with self.http.request(method, url, headers=headers, **options) as reply:
            body: Any = await reply.read()
            if reply.content_type == "application/json":
                body = json.loads(body)
            return reply.status, reply.headers, body

    def stub(self) -> api_grpc.CustomersAsyncStub:
        """A gRPC stub through the public port; its channel closes with the test's loop."""
        channel = grpc.aio.insecure_channel(f"127.0.0.1:{self.envoy.config.port}")
        return api_grpc.CustomersStub(channel)  # type: ignore[return-value, unused-ignore]


def config(folder: Path, template: Path = TEMPLATE, **changes: Any) -> EnvoyConfig:
    values: dict[str, Any] = dict(
        template=template,
        inputs=resources.envoy_inputs(),
        descriptors=resources.door_descriptors(),
        portal=resources.find_portal(),
        host="127.0.0.1",
        port=free_port(),
        issuer="penstock",
        audience="penstock",
        worker_sockets=[folder / "worker-0.sock", folder / "worker-1.sock"],
        sockets=folder,
        logs=folder,
    )
    return EnvoyConfig(**(values | changes))


@contextlib.asynccontextmanager
async def opened(**changes: Any) -> AsyncIterator[Door]:
    """A door whose sidecar has the given settings (``EnvoyConfig``)."""
    hub = FakeHub(Keys())
    with tempfile.TemporaryDirectory() as name:  # short: the paths of sockets are limited
        folder = Path(name)
        envoy = Envoy(config(folder, **changes), folder / "envoy.yaml")
        async with serve(hub, envoy.config.worker_sockets[0]), aiohttp.ClientSession() as http:
            await envoy.start()
            try:
                await envoy.ready(PATIENCE)
                yield Door(envoy, hub, hub.keys, http, folder)
            finally:
                await envoy.stop(0.5)


def rich_status(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    """The status in the error's trailers; fails unless it agrees with the call's own."""
    details = [v for k, v in error.trailing_metadata() if k == "grpc-status-details-bin"]
    assert details, "no details"
    status = status_pb2.Status.FromString(details[0])
    assert (status.code, status.message) == (error.code().value[0], error.details())
    return status


async def raw(door: Door, line: str, *headers: str) -> bytes:
    """The raw bytes of a reply, including what clients hide."""
    reader, writer = await asyncio.open_connection("127.0.0.1", door.envoy.config.port)
    head = "\r\n".join([line, "Host: hub", "Connection: close", *headers, "", ""])
    writer.write(head.encode())
    reply = await reader.read()
    writer.close()
    await writer.wait_closed()
    return reply


async def logged(door: Door, request_id: str) -> dict[str, Any]:
    async with asyncio.timeout(PATIENCE):
        while True:
            for entry in read_log(door.envoy.config.access_log):
                if entry["request_id"] == request_id:
                    return entry
            await asyncio.sleep(0.05)


async def health(door: Door, expected: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            with contextlib.suppress(aiohttp.ClientConnectorError):  # still starting
                status, _, _ = await door.call("GET", "/healthz")
                if status == expected:
                    return
            await asyncio.sleep(0.05)
