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
from penstockd.config import Settings
from penstockd.errors import Refused
from penstockd.hub import Hub
from penstockd.installation import node_id
from penstockd.organs import Organs, end_tasks
from penstockd.shared_settings import SCOPES, Scope, shared_values
from penstockd.store.nodes import Agreement
from penstockd.store.singletons import Leases

_log = structlog.get_logger(__name__)


async def run_keeper(settings: Settings) -> None:
    """Run the keeper until SIGTERM or SIGINT."""

    async def work(hub: Hub, stopping: asyncio.Event) -> None:
        # The node stands by, without any lease, until it has seen the others' settings.
        leases = Leases(hub.database, node_id(settings), socket.gethostname(), stands_by=True)
        agreement = Agreement(
            hub.database, leases, shared_values(settings), _grave_settings(settings), hub.ring
        )
        organs = Organs(wiring.keeper_organs(settings, hub, leases, agreement))
        running = asyncio.create_task(organs.run())
        _log.info("keeper_started")
        await stopping.wait()
        await end_tasks([running])
        # Leave first, so that the other nodes take over all of the leases that are released next.
        with contextlib.suppress(Refused):
            await agreement.leave()
        await leases.close()

    await wiring.run_process(settings, "keeper", wiring.keeper_database, work)


def _grave_settings(settings: Settings) -> Collection[str]:
    """The settings that make a node stand by if they differ."""
    if settings.differing_settings == "warn":
        return ()
    return [name for name, scope in SCOPES.items() if scope is Scope.STAND_BY]
