"""UpdateShape: the next version of a shape."""

from __future__ import annotations

from penstockd.calls import Call
from penstockd.errors import ValueInvalid
from penstockd.hub import Hub
from penstockd.shapes.model import ShapeDefinition
from penstockd.shapes.using import change_shapes, check_shape, find_own_shape, shape_owner
from penstockd.store.database import Connection
from penstockd.store.shapes import StoredShape, insert_version


async def update_shape(
    hub: Hub, call: Call, shape_id: str, definition: ShapeDefinition
) -> StoredShape:
    """Save a new version. Raises ValueInvalid, PermissionDenied, ShapeNotFound, TooManyShapes."""
    owner = shape_owner(hub.catalog, call)
    document = check_shape(call, definition).document

    async def work(connection: Connection) -> StoredShape:
        _, earlier = await find_own_shape(call, connection, owner, shape_id)
        if earlier.dataset != definition.dataset:
            raise ValueInvalid.of("shape.dataset", "cannot change")
        saved = await insert_version(connection, owner, shape_id, document)
        await hub.webhooks.check_shape(call, connection, shape_id)
        return saved

    return await change_shapes(hub.database, call, shape_id, work)
