"""GetMonitoring: how the node that answers is."""

from __future__ import annotations

from penstockd.calls import Call
from penstockd.hub import Hub
from penstockd.observe.monitor import NodeReadings
from penstockd.policy.model import Permission


async def get_monitoring(hub: Hub, call: Call) -> NodeReadings:
    """The readings of this node. Raises PermissionDenied."""
    call.require(Permission.MONITORING_READ)
    call.entry.row_count = 1
    return await hub.monitor.read()
