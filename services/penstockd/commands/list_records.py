"""List: one page of the records that match."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message

from penstockd.audit.given import given_records
from penstockd.calls import Call
from penstockd.catalog import Dataset
from penstockd.errors import value_invalid
from penstockd.hub import Hub
from penstockd.policy.model import Action
from penstockd.policy.read import Page
from penstockd.policy.rendering import records_of
from penstockd.policy.view import View
from penstockd.query import query_digest

DEFAULT_PAGE = 100
MAX_PAGE = 1000
#: A page of more rows takes one more place of its consumer's share for each of these.
PLACE_ROWS = 150
#: After so many rows other calls get their turn.
TURN_ROWS = 50


@dataclass(frozen=True, slots=True)
class Query:
    """What a caller asks of a list, as it wrote it."""

    filter: str = ""
    order_by: str = ""
    fields: str = ""
    page_size: int = 0
    page_token: str = ""

    def bound_to(self, call: Call, view: View) -> bytes:
        """What a page token of this query is bound to: the query, its asker, the policy."""
        return query_digest(
            dataset=view.dataset.name,
            filter=self.filter,
            order_by=self.order_by,
            fields=self.fields,
            scope=f"{call.entry.consumer_id}\n{view.revision}",
        )


async def list_records(
    hub: Hub, call: Call, dataset: Dataset, query: Query
) -> tuple[list[Message], str]:
    """The records of a page and the token of the next, "" on the last.

    Raises PermissionDenied, FieldUnknown, FilterInvalid, OrderInvalid, PageTokenInvalid.
    """
    view = call.view(dataset, Action.READ)
    call.asked(filter=query.filter, order_by=query.order_by, fields=query.fields)
    size = page_size(query.page_size)
    bound = query.bound_to(call, view)
    position = hub.page_tokens.read(query.page_token, bound) if query.page_token else None
    records, end = await read_page(hub, call, view, query, size, position)
    return records, hub.page_tokens.issue(bound, end) if end is not None else ""


async def read_page(
    hub: Hub, call: Call, view: View, query: Query, size: int, position: Sequence[Any] | None
) -> tuple[list[Message], tuple[Any, ...] | None]:
    """At most ``size`` records after a position, and the last one's if there are more.

    The call's entry says which they are, and what is shown of them.

    Raises FieldUnknown, FilterInvalid, OrderInvalid, PageTokenInvalid.
    """
    page = view.prepared(Page, query.filter, query.order_by, query.fields)
    statement = page.statement(position)
    # What is made of the rows counts as well as what reads them: the share is held until then.
    async with hub.database.connection(weight=1 + size // PLACE_ROWS) as connection:
        rows = await connection.fetch(statement.text, *statement.arguments(limit=size + 1))
        end = page.position(tuple(rows[size - 1])) if len(rows) > size else None
        records: list[Message] = []
        for at in range(0, min(size, len(rows)), TURN_ROWS):
            if at:
                await hub.turns.give()
            some = rows[at : min(size, at + TURN_ROWS)]
            records += await records_of(page.codec, [row[: page.width] for row in some])
    keys = [row[-1] for row in rows[:size]]  # every order ends with the key
    call.disclose(given_records(view.dataset.name, call.rule(view, query.fields), keys))
    return records, end


def page_size(asked: int) -> int:
    """How many records a page holds: DEFAULT_PAGE if not said, never more than MAX_PAGE."""
    if asked < 0:
        raise value_invalid("page_size", "is negative")
    return min(asked or DEFAULT_PAGE, MAX_PAGE)
