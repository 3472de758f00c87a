"""Export: one bounded page of the records that match, as a file."""

from __future__ import annotations

from typing import Any

from penstockd.calls import Call
from penstockd.catalog import Dataset
from penstockd.exports.page import FilePage, read_file_page
from penstockd.hub import Hub
from penstockd.policy.model import Action
from penstockd.policy.pages import Query
from penstockd.query import page_size
from penstockd.shapes.using import choose_shape


async def export_page(
    hub: Hub,
    call: Call,
    dataset: Dataset,
    query: Query,
    format: str,
    shape: str = "",
    **choices: Any,
) -> tuple[FilePage, str]:
    """The records of a page in a format, and the token of the next page: "" on the last.

    ``shape`` names a shape of the caller, or is "". Raises PermissionDenied, PageTokenInvalid,
    ShapeNotFound, and what ``read_file_page`` raises.
    """
    view = call.view(dataset, Action.READ)
    chosen = await choose_shape(hub, call, dataset, shape)
    call.asked(format=format, **query.said)
    size = page_size(query.page_size)
    bound = query.bound_to(call.principal.consumer_id, view, chosen.document if chosen else "")
    after = hub.page_tokens.read(query.page_token, bound) if query.page_token else None
    shaped = chosen.in_view(view) if chosen else None
    choices["surface"] = call.entry.surface
    page = await read_file_page(hub.database, view, query, size, after, format, shaped, **choices)
    token = hub.page_tokens.issue(bound, page.end) if page.end is not None else ""
    await call.disclose(page.given(call, view))
    return page, token
