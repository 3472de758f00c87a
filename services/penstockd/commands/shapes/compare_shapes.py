"""CompareShapes: the columns that differ between two versions of a shape."""

from __future__ import annotations

from collections.abc import Sequence

from penstockd.calls import Call
from penstockd.hub import Hub
from penstockd.shapes.model import ColumnDifference, ShapeDefinition, compare_columns
from penstockd.shapes.using import shape_owner
from penstockd.store.shapes import find_shape


async def compare_shapes(
    hub: Hub, call: Call, shape_id: str, from_version: int, to_version: int
) -> Sequence[ColumnDifference]:
    """The differences between a version, the one before ``to_version`` if 0, and a later one, the
    latest if 0. Raises ShapeNotFound."""
    call.entry.record_key = shape_id[:63]
    async with hub.database.connection() as connection:
        later = await find_shape(connection, shape_owner(call), shape_id, to_version)
        before = from_version or max(later.version - 1, 1)
        earlier = await find_shape(connection, shape_owner(call), shape_id, before)
    definitions = map(ShapeDefinition.parse, (earlier.definition, later.definition))
    return compare_columns(*definitions)
