"""DeleteShape: removes a shape with all its versions."""

from __future__ import annotations

from penstockd.calls import Call
from penstockd.feed.bells import ring_everywhere, shapes_line
from penstockd.hub import Hub
from penstockd.shapes.using import change_shapes, find_own_shape, shape_owner
from penstockd.store.database import Connection
from penstockd.store.shapes import delete_shape_rows


async def delete_shape(hub: Hub, call: Call, shape_id: str) -> None:
    """Delete the caller's shape. Raises ShapeNotFound, PermissionDenied, and ShapeInUse if
    subscriptions or webhooks name it. Streams that use it end."""
    owner = shape_owner(hub.catalog, call)

    async def work(connection: Connection) -> None:
        await find_own_shape(call, connection, owner, shape_id)
        await delete_shape_rows(connection, owner, shape_id)
        await ring_everywhere(hub.announcements, connection, shapes_line(owner))

    await change_shapes(hub.database, call, shape_id[:63], work)
