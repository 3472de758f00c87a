"""Gives the metrics of a process to its node: as text, to whoever connects to a Unix socket."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import generate_latest

from penstockd.observe.metrics import REGISTRY

#: Seconds in which a reader must take the text.
_TAKEN = 5.0


def metrics_socket(sockets: Path, process: str) -> Path:
    """The socket of a process in the folder of the node's sockets."""
    return sockets / f"stats-{process}.sock"


async def serve_metrics(path: Path, registry: CollectorRegistry = REGISTRY) -> None:
    """Write the metrics in the OpenMetrics text format to each connection, until cancelled.

    Only our own user can connect. Raises OSError if the socket cannot be made.
    """

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            # The reader has gone, or reads nothing: its next scrape begins anew.
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(_TAKEN):
                    writer.write(await asyncio.to_thread(generate_latest, registry))
                    await writer.drain()
        finally:
            writer.close()

    async with await asyncio.start_unix_server(answer, sock=_bind_socket(path)) as server:
        await server.serve_forever()


def _bind_socket(path: Path) -> socket.socket:
    """A socket at a path, in the place of one that a killed process left behind."""
    path.unlink(missing_ok=True)
    made = socket.socket(socket.AF_UNIX)
    try:
        made.bind(str(path))
        os.chmod(path, 0o600)
    except BaseException:
        made.close()
        raise
    return made
