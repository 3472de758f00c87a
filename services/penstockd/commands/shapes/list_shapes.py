"""ListShapes: the caller's shapes."""

from __future__ import annotations

from collections.abc import Sequence

from penstockd.calls import Call
from penstockd.hub import Hub
from penstockd.policy.model import Action
from penstockd.shapes.model import ShapeDefinition
from penstockd.shapes.using import shape_owner
from penstockd.store.shapes import StoredShape, read_shapes


async def list_shapes(hub: Hub, call: Call) -> Sequence[StoredShape]:
    """The latest versions of the caller's shapes of datasets that its token may read, by id."""
    owner = shape_owner(hub.catalog, call)
    async with hub.database.connection() as connection:
        found = await read_shapes(connection, owner)
    datasets = [ShapeDefinition.parse(shape.definition).dataset for shape in found]
    shown = [s for s, d in zip(found, datasets, strict=True) if call.reaches(d, Action.READ)]
    call.entry.row_count = len(shown)
    return shown
