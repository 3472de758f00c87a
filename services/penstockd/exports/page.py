"""One bounded page of the records that match, as a complete file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from penstockd.exports.plan import open_target
from penstockd.policy.pages import Query
from penstockd.policy.read import ExportQuery
from penstockd.policy.unreadable import naming_unreadable
from penstockd.policy.view import View
from penstockd.shapes.columns import ShapedView
from penstockd.store.database import Database
from penstockd.store.sql import apply_settings


@dataclass(frozen=True, slots=True)
class FilePage:
    """A page as a file in its format.

    ``keys`` is the encoded set of its ``rows`` records, ``rule_fields`` what they show (see
    ``Call.rule``), ``end`` the position where the page ends: None on the last page.
    """

    body: bytes
    content_type: str
    file_name: str
    rows: int
    keys: bytes
    rule_fields: str
    end: Sequence[Any] | None


async def read_file_page(
    database: Database,
    view: View,
    query: Query,
    size: int,
    after: Sequence[Any] | None,
    format: str,
    shaped: ShapedView | None = None,
    **choices: Any,
) -> FilePage:
    """The ``size`` records after a position (None: the first ones), from one snapshot, in the
    columns of ``shaped`` if there are any.

    ``choices`` are those of ``open_writer`` for a file that is not compressed. Raises FieldUnknown,
    FilterInvalid, OrderInvalid, RecordUnreadable and, for a choice that the format does not have,
    ValueInvalid.
    """
    target = open_target(view, query.fields, shaped, format, **choices)
    writer = target.writer
    read = ExportQuery(view, target.columns, filter=query.filter, order_by=query.order_by)
    sql, settings = read.copy(size, after)
    end = read.end(size, after)
    parts = [writer.head()]

    async def take(chunk: bytes) -> None:
        parts.append(writer.feed(bytes(chunk)))

    naming = naming_unreadable(database.snapshot, view, target.shown, query.filter)
    async with naming, database.snapshot() as connection:
        await apply_settings(connection, settings)
        await connection.copy_from_query(sql, output=take, format="binary")
        ends = await connection.fetch(end.text, *end.arguments())
    parts += writer.ending()
    return FilePage(
        b"".join(parts),
        writer.content_type,
        writer.file_name,
        writer.rows,
        writer.keys.encode(),
        target.rule_fields,
        tuple(ends[0]) if len(ends) > 1 else None,
    )
