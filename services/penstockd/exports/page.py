"""One bounded page of the records that match, as a file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from penstockd.audit.given import given_set
from penstockd.calls import Call, ReadingOrgans
from penstockd.catalog import Dataset
from penstockd.exports.plan import open_target
from penstockd.policy.model import Action
from penstockd.policy.pages import Query
from penstockd.policy.read import ExportQuery
from penstockd.policy.unreadable import naming_unreadable
from penstockd.query import PageTokens, page_size
from penstockd.shapes.using import ChosenShape
from penstockd.store.sql import apply_settings


class PagingOrgans(ReadingOrgans, Protocol):
    """The organs with which pages of files are written."""

    @property
    def page_tokens(self) -> PageTokens:
        """Issues the tokens of next pages."""


@dataclass(frozen=True, slots=True)
class ExportedPage:
    """A page as a complete file in its format; ``next_token`` is "" on the last page."""

    body: bytes
    content_type: str
    file_name: str
    next_token: str


async def write_page(
    organs: PagingOrgans,
    call: Call,
    dataset: Dataset,
    query: Query,
    format: str,
    shape: ChosenShape | None = None,
    **choices: Any,
) -> ExportedPage:
    """The records of a page in a format and the token of the next page, from one snapshot.

    The page has the columns of ``shape``, if there is one. ``choices`` are those of ``open_writer``
    for a file that is not compressed. Raises what ``export_page`` raises.
    """
    view = call.view(dataset, Action.READ)
    call.asked(format=format, **query.said)
    size = page_size(query.page_size)
    bound = query.bound_to(call.principal.consumer_id, view, shape.document if shape else "")
    after = organs.page_tokens.read(query.page_token, bound) if query.page_token else None
    target = open_target(view, query.fields, shape, format, **choices)
    writer = target.writer
    read = ExportQuery(view, target.columns, filter=query.filter, order_by=query.order_by)
    sql, settings = read.copy(size, after)
    end = read.end(size, after)
    parts = [writer.head()]

    async def take(chunk: bytes) -> None:
        parts.append(writer.feed(bytes(chunk)))

    naming = naming_unreadable(organs.database.snapshot, view, target.shown, query.filter)
    async with naming, organs.database.snapshot() as connection:
        await apply_settings(connection, settings)
        await connection.copy_from_query(sql, output=take, format="binary")
        ends = await connection.fetch(end.text, *end.arguments())
    parts += writer.ending()
    token = organs.page_tokens.issue(bound, tuple(ends[0])) if len(ends) > 1 else ""
    rule = call.rule(view, target.shown_fields if shape else query.fields)
    call.disclose(given_set(dataset.name, rule, writer.rows, writer.keys.encode()))
    return ExportedPage(b"".join(parts), writer.content_type, writer.file_name, token)
