"""PreviewShape: a few records in a shape that is not saved, and whether it can be read back."""

from __future__ import annotations

from collections.abc import Mapping

from penstockd.calls import Call
from penstockd.errors import ValueInvalid
from penstockd.exports.page import FilePage, read_file_page
from penstockd.hub import Hub
from penstockd.policy.model import Action
from penstockd.policy.pages import Query
from penstockd.shapes.inverse import list_import_problems
from penstockd.shapes.model import ShapeDefinition
from penstockd.shapes.using import check_shape

#: Records of a preview, by default and at most.
USUAL_ROWS, MOST_ROWS = 10, 100


async def preview_shape(
    hub: Hub, call: Call, definition: ShapeDefinition, format: str, filter: str, rows: int
) -> tuple[FilePage, Mapping[str, str]]:
    """The first matching records by key, in the shape's columns, and why imports refuse columns
    (see ``list_import_problems``).

    Raises ValueInvalid, PermissionDenied, and what ``read_file_page`` raises.
    """
    if rows < 0:
        raise ValueInvalid.of("page_size", "is negative")
    shaped = check_shape(call, definition)
    view, query = call.view(hub.catalog[definition.dataset], Action.READ), Query(filter)
    call.asked(format=format, **query.said)
    size = min(rows or USUAL_ROWS, MOST_ROWS)
    page = await read_file_page(
        hub.database, view, query, size, None, format, shaped, surface=call.entry.surface
    )
    await call.disclose(page.given(call, view))
    return page, list_import_problems(call, definition.dataset, shaped.document)
