"""PreviewShape: a few records in a shape that is not saved."""

from __future__ import annotations

from penstockd.calls import Call
from penstockd.errors import ValueInvalid
from penstockd.exports.page import ExportedPage, write_page
from penstockd.hub import Hub
from penstockd.policy.pages import Query
from penstockd.shapes.model import ShapeDefinition
from penstockd.shapes.using import ChosenShape, check_shape

#: Records of a preview, by default and at most.
USUAL_ROWS, MOST_ROWS = 10, 100


async def preview_shape(
    hub: Hub, call: Call, definition: ShapeDefinition, format: str, filter: str, rows: int
) -> ExportedPage:
    """The first matching records by key, in the shape's columns.

    Raises ValueInvalid, PermissionDenied, FilterInvalid, FormatUnknown and RecordUnreadable.
    """
    if rows < 0:
        raise ValueInvalid.of("page_size", "is negative")
    document = check_shape(hub.catalog, call, definition)
    query = Query(filter, page_size=min(rows or USUAL_ROWS, MOST_ROWS))
    shape = ChosenShape("preview", document)
    return await write_page(hub, call, hub.catalog[definition.dataset], query, format, shape)
