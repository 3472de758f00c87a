"""CreateShape: a new shape of the caller, in version 1."""

from __future__ import annotations

from penstockd.calls import Call
from penstockd.hub import Hub
from penstockd.shapes.model import ShapeDefinition, check_shape_id
from penstockd.shapes.using import change_shapes, check_shape, shape_owner
from penstockd.store.database import Connection
from penstockd.store.shapes import StoredShape, insert_shape


async def create_shape(
    hub: Hub, call: Call, shape_id: str, definition: ShapeDefinition
) -> StoredShape:
    """Save a shape. Raises ValueInvalid, PermissionDenied, ShapeExists and TooManyShapes."""
    owner = shape_owner(hub.catalog, call)
    document = check_shape(call, definition).document
    check_shape_id(shape_id)

    async def work(connection: Connection) -> StoredShape:
        return await insert_shape(connection, owner, shape_id, document)

    return await change_shapes(hub.database, call, shape_id, work)
