"""The gRPC server of one worker: all services, health and reflection, on one socket."""

from __future__ import annotations

from collections.abc import Sequence

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection

from penstockd.hub import Hub
from penstockd.rpc import datasets
from penstockd.rpc.door import install
from penstockd.rpc.hub import routes as hub_routes

#: The largest message taken; larger uploads come as streams of pieces.
MAX_MESSAGE_BYTES = 17 * 1024 * 1024

#: Calls that may wait to be taken in. The sidecar sends no more at a time.
MAX_PENDING = 50_000

OPTIONS: Sequence[tuple[str, int]] = (
    # gRPC's own bound of a thousand drops calls at random, whoever makes them: those of one
    # consumer would end others'. What they wait for is shared out by the hub.
    ("grpc.server.max_pending_requests", MAX_PENDING),
    ("grpc.server.max_pending_requests_hard_limit", 2 * MAX_PENDING),
    # Nor after half a minute: how long a call may take is known to the sidecar, which says so.
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
        routes = [*hub_routes(), *datasets.routes(hub.catalog)]
        install(self._server, hub, routes)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        names = sorted({r.method.service for r in routes})
        reflection.enable_server_reflection(
            [*names, reflection.SERVICE_NAME], self._server, pool=hub.catalog.pool
        )
        self._server.add_insecure_port(address)

    async def start(self) -> None:
        """Accept calls and report SERVING at once: opening the hub has proved the database.

        An answer of another kind to the first question would cost the worker another round of them.
        """
        await self.set_serving(True)
        await self._server.start()

    async def set_serving(self, serving: bool) -> None:
        """What the health service answers, for the server as a whole."""
        reply = health_pb2.HealthCheckResponse
        await self._health.set("", reply.SERVING if serving else reply.NOT_SERVING)

    async def set_health(self, name: str, well: bool) -> None:
        """What the health service answers for something that is not the server itself."""
        reply = health_pb2.HealthCheckResponse
        await self._health.set(name, reply.SERVING if well else reply.NOT_SERVING)

    async def stop(self, grace: float) -> None:
        """Take no more calls, give those under way ``grace`` seconds, then cancel them."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace)
