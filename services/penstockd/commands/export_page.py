"""Export: one bounded page of the records that match, as a file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from penstockd.audit.given import given_set
from penstockd.calls import Call
from penstockd.catalog import Dataset
from penstockd.exports.plan import open_target
from penstockd.hub import Hub
from penstockd.policy.model import Action
from penstockd.policy.pages import Query
from penstockd.policy.read import ExportQuery
from penstockd.policy.unreadable import naming_unreadable
from penstockd.query import page_size, parse_fields
from penstockd.store.sql import apply_settings


@dataclass(frozen=True, slots=True)
class ExportedPage:
    """A page as a complete file in its format; ``next_token`` is "" on the last page."""

    body: bytes
    content_type: str
    file_name: str
    next_token: str


async def export_page(
    hub: Hub, call: Call, dataset: Dataset, query: Query, format: str, **choices: Any
) -> ExportedPage:
    """The records of a page in a format and the token of the next page, from one snapshot.

    ``choices`` are those of ``open_writer`` for a file that is not compressed. Raises
    PermissionDenied, FieldUnknown, FilterInvalid, OrderInvalid, PageTokenInvalid, RecordUnreadable
    and, for a choice that the format does not have, ValueInvalid.
    """
    view = call.view(dataset, Action.READ)
    call.asked(format=format, **query.said)
    size = page_size(query.page_size)
    bound = query.bound_to(call.principal.consumer_id, view)
    after = hub.page_tokens.read(query.page_token, bound) if query.page_token else None
    fields = parse_fields(query.fields, view)
    target, selected, columns = open_target(view, fields, format, **choices)
    read = ExportQuery(view, selected, columns, filter=query.filter, order_by=query.order_by)
    sql, settings = read.copy(size, after)
    end = read.end(size, after)
    parts = [target.head()]

    async def take(chunk: bytes) -> None:
        parts.append(target.feed(bytes(chunk)))

    naming = naming_unreadable(hub.database.snapshot, view, fields, query.filter)
    async with naming, hub.database.snapshot() as connection:
        await apply_settings(connection, settings)
        await connection.copy_from_query(sql, output=take, format="binary")
        ends = await connection.fetch(end.text, *end.arguments())
    parts += target.ending()
    token = hub.page_tokens.issue(bound, tuple(ends[0])) if len(ends) > 1 else ""
    rule = call.rule(view, query.fields)
    call.disclose(given_set(dataset.name, rule, target.rows, target.keys.encode()))
    return ExportedPage(b"".join(parts), target.content_type, target.file_name, token)
