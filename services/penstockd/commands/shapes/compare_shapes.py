"""CompareShapes: two versions of a shape, to find how they differ."""

from __future__ import annotations

from penstockd.calls import Call
from penstockd.hub import Hub
from penstockd.shapes.model import ShapeDefinition
from penstockd.shapes.using import find_own_shape, shape_owner


async def compare_shapes(
    hub: Hub, call: Call, shape_id: str, from_version: int, to_version: int
) -> tuple[ShapeDefinition, ShapeDefinition]:
    """A version (0: the one before) and a later one (0: the latest). Raises ShapeNotFound and
    PermissionDenied."""
    owner = shape_owner(hub.catalog, call)
    call.entry.record_key = shape_id[:63]
    async with hub.database.connection() as connection:
        found, later = await find_own_shape(call, connection, owner, shape_id, to_version)
        before = from_version or max(found.version - 1, 1)
        _, earlier = await find_own_shape(call, connection, owner, shape_id, before)
    return earlier, later
