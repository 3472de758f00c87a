"""GetChangeLog: how far back the change log goes."""

from __future__ import annotations

from penstockd.commands.context import Call, Hub
from penstockd.commands.watching import readable
from penstockd.store.cursor import Extent


async def get_change_log(hub: Hub, call: Call) -> Extent:
    """The extent of the log. Raises PermissionDenied if the caller may not read any dataset."""
    readable(hub, call, ())
    return await hub.feed.extent()
