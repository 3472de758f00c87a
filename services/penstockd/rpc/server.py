"""The gRPC server of one worker: all services, health and reflection, on one socket."""

from __future__ import annotations

from collections.abc import Sequence

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio

from penstockd.hub import Hub
from penstockd.rpc import datasets
from penstockd.rpc.door import ServedRoute, install_routes
from penstockd.rpc.hub import list_hub_routes as hub_routes
from penstockd.rpc.reflection import enable_reflection
from penstockd.rpc.rest.door import install_rest
from penstockd.rpc.sidecar import install_check

#: The largest message accepted; larger uploads come as streams of pieces.
MAX_MESSAGE_BYTES = 17 * 1024 * 1024

#: Calls that may wait to be accepted. The sidecar sends no more at a time.
MAX_PENDING = 50_000

OPTIONS: Sequence[tuple[str, int]] = (
    # gRPC's own bound of a thousand drops calls at random: one consumer's calls would end others'.
    # The hub shares out what calls wait for.
    ("grpc.server.max_pending_requests", MAX_PENDING),
    ("grpc.server.max_pending_requests_hard_limit", 2 * MAX_PENDING),
    # Nor may gRPC end calls after half a minute: the sidecar limits their time, and reports that.
    ("grpc.server_max_unrequested_time_in_server", 3600),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_metadata_size", 64 * 1024),
    ("grpc.so_reuseport", 0),
)


class Server:
    """Serves a hub on a socket until it is stopped."""

    def __init__(self, hub: Hub, address: str) -> None:
        self._server = grpc.aio.server(options=OPTIONS)
        self._health = health_aio.HealthServicer()
        routes = [*hub_routes(), *datasets.list_routes(hub.catalog)]
        served = [ServedRoute(hub, route) for route in routes]
        install_routes(self._server, served)
        install_rest(self._server, hub, served)
        install_check(self._server, hub)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        enable_reflection(self._server, {r.method.service for r in routes}, hub.catalog.pool)
        self._server.add_insecure_port(address)

    async def start(self) -> None:
        """Accept calls and report SERVING at once: opening the hub proved the database.

        A first NOT_SERVING would cost the worker one more health-check interval.
        """
        await self.set_serving(True)
        await self._server.start()

    async def set_serving(self, serving: bool) -> None:
        """Set what the health service answers for the server as a whole."""
        reply = health_pb2.HealthCheckResponse
        await self._health.set("", reply.SERVING if serving else reply.NOT_SERVING)

    async def set_health(self, name: str, well: bool) -> None:
        """Set what the health service answers for something other than the server itself."""
        reply = health_pb2.HealthCheckResponse
        await self._health.set(name, reply.SERVING if well else reply.NOT_SERVING)

    async def stop(self, grace: float) -> None:
        """Accept no more calls, give running ones ``grace`` seconds, then cancel them."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace)
