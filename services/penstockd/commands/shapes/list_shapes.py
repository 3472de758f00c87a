"""ListShapes: the caller's shapes."""

from __future__ import annotations

from collections.abc import Sequence

from penstockd.calls import Call
from penstockd.hub import Hub
from penstockd.shapes.using import shape_owner
from penstockd.store.shapes import StoredShape, read_shapes


async def list_shapes(hub: Hub, call: Call) -> Sequence[StoredShape]:
    """The latest versions of the caller's shapes, by id."""
    async with hub.database.connection() as connection:
        found = await read_shapes(connection, shape_owner(call))
    call.entry.row_count = len(found)
    return found
