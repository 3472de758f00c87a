"""GetChangeLog: how far back the change log goes."""

from __future__ import annotations

from penstockd.calls import Call
from penstockd.feed.watching import list_readable
from penstockd.hub import Hub
from penstockd.store.cursor import Extent


async def get_change_log(hub: Hub, call: Call) -> Extent:
    """The extent of the log. Raises PermissionDenied if the caller may not read any dataset."""
    list_readable(hub.catalog, call, ())
    return await hub.feed.extent()
