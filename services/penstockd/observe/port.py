"""The port where an operator's Prometheus reads the metrics of a node."""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import structlog
from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.registry import Collector

#: Scrapes that are answered at one time; further connections are closed at once.
MOST_SCRAPES = 4
#: Seconds that a client may take for its request, and for each piece of the answer.
STALLED = 10.0

_log = structlog.get_logger(__name__)


async def serve_node_metrics(host: str, port: int, metrics: Collector) -> None:
    """Answer scrapes in threads of their own, until cancelled. Raises OSError if the port is not
    free."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(metrics)
    app = make_wsgi_app(registry)
    server = make_server(host, port, app, _server_class(host), handler_class=_ScrapeHandler)
    thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
    thread.start()
    try:
        await asyncio.get_running_loop().create_future()
    finally:
        await asyncio.to_thread(_end_server, server, thread)


class _ScrapeHandler(WSGIRequestHandler):
    """One scrape, which leaves no line in the log."""

    timeout = STALLED

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


class _MetricsServer(ThreadingMixIn, WSGIServer):
    """A thread for each scrape, but not for more than MOST_SCRAPES."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self._places = threading.BoundedSemaphore(MOST_SCRAPES)
        super().__init__(*arguments, **named)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread, if one is free."""
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer, and free the place."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log a defect; a client that has gone, or takes too long, is none."""
        if not isinstance(sys.exception(), OSError):
            _log.error("scrape_failed", exc_info=True)


class _MetricsServer6(_MetricsServer):
    address_family = socket.AF_INET6


def _server_class(host: str) -> type[_MetricsServer]:
    return _MetricsServer6 if ":" in host else _MetricsServer


def _end_server(server: WSGIServer, thread: threading.Thread) -> None:
    server.shutdown()
    server.server_close()
    thread.join()
