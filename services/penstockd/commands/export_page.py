"""Export: one bounded page of the records that match, as a file."""

from __future__ import annotations

from typing import Any

from penstockd.calls import Call
from penstockd.catalog import Dataset
from penstockd.exports.page import ExportedPage, write_page
from penstockd.hub import Hub
from penstockd.policy.model import Action
from penstockd.policy.pages import Query
from penstockd.shapes.using import choose_shape


async def export_page(
    hub: Hub,
    call: Call,
    dataset: Dataset,
    query: Query,
    format: str,
    shape: str = "",
    **choices: Any,
) -> ExportedPage:
    """The records of a page in a format and the token of the next page, from one snapshot.

    ``shape`` names a shape of the caller, whose columns the page has. ``choices`` are those of
    ``open_writer`` for a file that is not compressed. Raises PermissionDenied, FieldUnknown,
    FilterInvalid, OrderInvalid, PageTokenInvalid, ShapeNotFound, RecordUnreadable and, for a choice
    that the format does not have, ValueInvalid.
    """
    call.view(dataset, Action.READ)
    chosen = await choose_shape(hub, call, dataset, shape)
    return await write_page(hub, call, dataset, query, format, chosen, **choices)
