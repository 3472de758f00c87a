"""GetShape: one version of a shape."""

from __future__ import annotations

from collections.abc import Mapping

from penstockd.calls import Call
from penstockd.hub import Hub
from penstockd.shapes.inverse import list_import_problems
from penstockd.shapes.using import find_own_shape, shape_owner
from penstockd.store.shapes import StoredShape


async def get_shape(
    hub: Hub, call: Call, shape_id: str, version: int
) -> tuple[StoredShape, Mapping[str, str]]:
    """A version of the caller's shape (0: the latest), and why imports refuse some of its columns.

    Raises ShapeNotFound, PermissionDenied.
    """
    owner = shape_owner(hub.catalog, call)
    call.entry.record_key = shape_id[:63]
    async with hub.database.connection() as connection:
        found, definition = await find_own_shape(call, connection, owner, shape_id, version)
    return found, list_import_problems(call, definition.dataset, found.definition)
