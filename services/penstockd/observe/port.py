"""The port where an operator's Prometheus reads the metrics of a node."""

from __future__ import annotations

import asyncio

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.registry import Collector


async def serve_node_metrics(host: str, port: int, metrics: Collector) -> None:
    """Answer scrapes in threads of their own, until cancelled. Raises OSError if the port is not
    free."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(metrics)
    server, thread = start_http_server(port, host, registry)
    try:
        await asyncio.get_running_loop().create_future()
    finally:
        await asyncio.to_thread(_end_server, server, thread)


def _end_server(server: object, thread: object) -> None:
    server.shutdown()  # type: ignore[attr-defined]
    server.server_close()  # type: ignore[attr-defined]
    thread.join()  # type: ignore[attr-defined]
