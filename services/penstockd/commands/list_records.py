"""List: one page of the records that match."""

from __future__ import annotations

from typing import TypeVar

from penstockd.audit.given import given_records
from penstockd.calls import Call
from penstockd.catalog import Dataset
from penstockd.hub import Hub
from penstockd.policy.model import Action
from penstockd.policy.pages import Query, read_page
from penstockd.policy.rendering import Render
from penstockd.query import page_size

T = TypeVar("T")


async def list_records(
    hub: Hub, call: Call, dataset: Dataset, query: Query, render: Render[T]
) -> tuple[list[T], str]:
    """The records of a page, as ``render`` makes them, and the token of the next, "" on the last.

    Raises PermissionDenied, FieldUnknown, FilterInvalid, OrderInvalid, PageTokenInvalid.
    """
    view = call.view(dataset, Action.READ)
    call.asked(**query.said)
    size = page_size(query.page_size)
    bound = query.bound_to(call.principal.consumer_id, view)
    position = hub.page_tokens.read(query.page_token, bound) if query.page_token else None
    surface = call.entry.surface
    page = await read_page(
        hub.database, view, query, size, position, render=render, surface=surface
    )
    await call.disclose(given_records(dataset.name, call.rule(view, query.fields), page.keys))
    token = hub.page_tokens.issue(bound, page.end) if page.end is not None else ""
    return page.records, token
