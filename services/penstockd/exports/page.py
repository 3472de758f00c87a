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
from penstockd.query import parse_fields
from penstockd.store.database import Database
from penstockd.store.sql import apply_settings


@dataclass(frozen=True, slots=True)
class FilePage:
    """A page as a file in its format.

    ``keys`` is the encoded set of its ``rows`` records, ``end`` the position where it ends: None on
    the last page.
    """

    body: bytes
    content_type: str
    file_name: str
    rows: int
    keys: bytes
    end: Sequence[Any] | None


async def read_file_page(
    database: Database,
    view: View,
    query: Query,
    size: int,
    after: Sequence[Any] | None,
    format: str,
    **choices: Any,
) -> FilePage:
    """The ``size`` records after a position (None: the first ones), from one snapshot.

    ``choices`` are those of ``open_writer`` for a file that is not compressed. Raises FieldUnknown,
    FilterInvalid, OrderInvalid, RecordUnreadable and, for a choice that the format does not have,
    ValueInvalid.
    """
    fields = parse_fields(query.fields, view)
    target, selected, columns = open_target(view, fields, format, **choices)
    read = ExportQuery(view, selected, columns, filter=query.filter, order_by=query.order_by)
    sql, settings = read.copy(size, after)
    end = read.end(size, after)
    parts = [target.head()]

    async def take(chunk: bytes) -> None:
        parts.append(target.feed(bytes(chunk)))

    naming = naming_unreadable(database.snapshot, view, fields, query.filter)
    async with naming, database.snapshot() as connection:
        await apply_settings(connection, settings)
        await connection.copy_from_query(sql, output=take, format="binary")
        ends = await connection.fetch(end.text, *end.arguments())
    parts += target.ending()
    return FilePage(
        b"".join(parts),
        target.content_type,
        target.file_name,
        target.rows,
        target.keys.encode(),
        tuple(ends[0]) if len(ends) > 1 else None,
    )
