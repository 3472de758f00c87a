"""The keeper of a node: work that only one node does at a time, each part under a lease.

Each singleton is an organ of its own, so that nodes can share the work, a failing one restarts no
other, and one that loses its lease stops alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Collection

import structlog

from penstockd import wiring
from penstockd.budget import run_offloaded
from penstockd.config import Settings
from penstockd.errors import Refused
from penstockd.hub import Hub
from penstockd.installation import find_certificates, node_id
from penstockd.metering.door_hours import DoorHours
from penstockd.metering.highest_rate import find_highest_rate
from penstockd.node.ring import RingRate, write_plan_rate
from penstockd.node.sockets import sockets_folder
from penstockd.observe.exposition import metrics_socket, serve_metrics
from penstockd.organs import Organ, Organs, end_tasks
from penstockd.shared_settings import SCOPES, Scope, shared_values
from penstockd.store.nodes import Agreement
from penstockd.store.singletons import Leases
from penstockd.vitals import KeeperReadings

#: How often a new policy is looked for, to tell the sidecar its highest rate, in seconds.
RING_SECONDS = 0.5

_log = structlog.get_logger(__name__)


async def run_keeper(settings: Settings) -> None:
    """Run the keeper until SIGTERM or SIGINT."""

    async def work(hub: Hub, stopping: asyncio.Event) -> None:
        # The node stands by, without any lease, until it has seen the others' settings.
        leases = Leases(hub.database, node_id(settings), socket.gethostname(), stands_by=True)
        agreement = Agreement(
            hub.database, leases, shared_values(settings), _grave_settings(settings), hub.ring
        )
        readings = _make_readings(settings, hub)
        own_socket = metrics_socket(sockets_folder(settings.data_dir), "keeper")
        organs = Organs(
            [
                *wiring.keeper_organs(settings, hub, leases, agreement),
                Organ("vitals", readings.follow),
                Organ("own-metrics", lambda: serve_metrics(own_socket)),
                Organ("door-hours", _make_door_hours(settings, hub).run),
                *_metrics_organs(settings),
                *_ring_organs(settings, hub),
            ]
        )
        readings.watch_organs(organs)
        readings.register()
        running = asyncio.create_task(organs.run())
        _log.info("keeper_started")
        await stopping.wait()
        await end_tasks([running])
        # Leave first, so that the other nodes take over all of the leases that are released next.
        with contextlib.suppress(Refused):
            await agreement.leave()
        await leases.close()
        readings.unregister()

    await wiring.run_process(settings, "keeper", wiring.keeper_database, work)


def _make_readings(settings: Settings, hub: Hub) -> KeeperReadings:
    """What the keeper reads for the node's metrics."""
    return KeeperReadings(
        hub.database,
        settings.data_dir,
        settings.disk_reserve_mb << 20,
        settings.key_days * 86_400.0,
        find_certificates(settings),
    )


def _make_door_hours(settings: Settings, hub: Hub) -> DoorHours:
    """What notes the answers of the node's sidecar."""
    socket_path = sockets_folder(settings.data_dir) / "admin.sock"
    return DoorHours(hub.database, socket_path, node_id(settings))


def _metrics_organs(settings: Settings) -> list[Organ]:
    """What gives the node's metrics to the operator: a port to scrape, and exports by OTLP."""
    port, endpoint, organs = settings.metrics_port, settings.otlp_endpoint, list[Organ]()
    if port is None and not endpoint:
        return organs
    # They load an HTTP server and the joining, which a keeper need not have.
    from penstockd.observe.joining import NodeMetrics

    sockets = sockets_folder(settings.data_dir)
    workers = [f"worker-{i}" for i in range(settings.workers)]
    metrics = NodeMetrics(sockets, workers, sockets / "admin.sock")
    if port is not None:
        from penstockd.observe.port import serve_node_metrics

        host = settings.metrics_host
        organs.append(Organ("metrics", lambda: serve_node_metrics(host, port, metrics)))
    if endpoint:
        from penstockd.observe.otlp import push_metrics

        node = node_id(settings)
        organs.append(Organ("otlp-metrics", lambda: push_metrics(endpoint, metrics, node)))
    return organs


def _ring_organs(settings: Settings, hub: Hub) -> list[Organ]:
    """What tells the node's sidecar the highest rate of the plans, if it limits callers at all."""
    if not settings.rate_limit:
        return []
    folder = sockets_folder(settings.data_dir)

    async def follow() -> None:
        known: int | None = None
        while True:
            policy = hub.policy.newest
            if policy.revision != known:
                found = await run_offloaded(find_highest_rate, policy)
                write_plan_rate(folder, RingRate(*found) if found is not None else None)
                known = policy.revision
            await asyncio.sleep(RING_SECONDS)

    return [Organ("coarse-ring", follow)]


def _grave_settings(settings: Settings) -> Collection[str]:
    """The settings that make a node stand by if they differ."""
    if settings.differing_settings == "warn":
        return ()
    return [name for name, scope in SCOPES.items() if scope is Scope.STAND_BY]
