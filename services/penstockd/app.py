"""A worker: serves calls on a socket and follows the policy under which they are judged."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path

import structlog

from penstockd import formats, wiring
from penstockd.budget import share_interpreter
from penstockd.config import Settings
from penstockd.hub import Hub
from penstockd.installation import node_id
from penstockd.observe.exposition import metrics_socket, serve_metrics
from penstockd.organs import Organ, Organs, end_tasks
from penstockd.rpc.health import report_health, report_node_health
from penstockd.rpc.server import Server
from penstockd.store.shortages import Shortages
from penstockd.vitals import WorkerReadings

#: Seconds in which calls may end when a worker is stopped.
STOP_GRACE = 10.0

_log = structlog.get_logger(__name__)


async def serve_calls(settings: Settings, socket: Path) -> None:
    """Run a worker on a Unix socket until SIGTERM or SIGINT, then let its calls end."""

    async def work(hub: Hub, stopping: asyncio.Event) -> None:
        # Not earlier: a full log must not end the process because of what is logged meanwhile.
        share_interpreter()
        formats.load_ahead()
        server = Server(hub, f"unix:{socket}")
        # All objects made so far stay alive: the collector need not scan them while a call waits.
        gc.collect()
        gc.freeze()
        await server.start()
        organs = make_organs(hub, server, settings, socket)
        readings = WorkerReadings(hub, organs)
        readings.register()
        running = asyncio.create_task(organs.run())
        _log.info("worker_started", socket=str(socket))
        await stopping.wait()
        hub.feed.stop()
        await server.stop(STOP_GRACE)
        await end_tasks([running])
        readings.unregister()

    await wiring.run_process(settings, f"worker {socket.stem}", wiring.worker_database, work)


def make_organs(hub: Hub, server: Server, settings: Settings, socket: Path) -> Organs:
    """Everything that a worker runs besides its calls."""
    node = node_id(settings)
    shortages = Shortages(settings.data_dir, settings.disk_reserve_mb << 20)
    organs = Organs(
        [
            *wiring.worker_organs(hub),
            Organ("health", lambda: report_health(hub, server)),
            Organ("metrics", lambda: serve_metrics(metrics_socket(socket.parent, socket.stem))),
            Organ(
                "node-health",
                lambda: report_node_health(hub, server, node, lambda: organs.failing, shortages),
            ),
        ]
    )
    return organs
