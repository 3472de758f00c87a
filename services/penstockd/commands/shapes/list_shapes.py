"""ListShapes: the caller's shapes."""

from __future__ import annotations

from penstockd.calls import Call
from penstockd.hub import Hub
from penstockd.paging import Paging
from penstockd.shapes.using import shape_owner, shows_shape
from penstockd.store.shapes import StoredShape, read_shapes


async def list_shapes(
    hub: Hub, call: Call, page_size: int, page_token: str
) -> tuple[list[StoredShape], str]:
    """A page of the shapes of what the token may read, and the next page's token."""
    owner = shape_owner(hub.catalog, call)
    paging = Paging(hub.page_tokens, call, "shapes", page_size, page_token)
    async with hub.database.connection() as connection:
        found = await read_shapes(connection, owner, paging.after(""), paging.limit)
    return paging.cut(found, lambda shape: shape.shape_id, lambda shape: shows_shape(call, shape))
