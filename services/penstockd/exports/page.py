"""One bounded page of the records that match, as a complete file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from penstockd.exports.plan import ExportTarget, open_target
from penstockd.policy.pages import Query
from penstockd.policy.read import ExportQuery
from penstockd.policy.unreadable import naming_unreadable
from penstockd.policy.view import View
from penstockd.reply_room import room_of
from penstockd.shapes.columns import ShapedView
from penstockd.store.database import Connection, Database
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
    *,
    surface: str | None = None,
    **choices: Any,
) -> FilePage:
    """The ``size`` records after a position (None: the first ones), from one snapshot, in the
    columns of ``shaped`` if it is given; fewer if the file would be too large for a reply on
    ``surface`` (see ``reply_room``).

    ``choices`` are those of ``open_writer`` for a file that is not compressed. Raises FieldUnknown,
    FilterInvalid, OrderInvalid, RecordUnreadable and, for a choice that the format does not have,
    ValueInvalid.
    """

    def target() -> ExportTarget:
        return open_target(view, query.fields, shaped, format, **choices)

    first, room = target(), room_of(surface)
    read = ExportQuery(view, first.columns, filter=query.filter, order_by=query.order_by)
    naming = naming_unreadable(database.snapshot, view, first.shown, query.filter)
    async with naming, database.snapshot() as connection:
        fitting = read.fitting(first.shown, size, after)
        arguments = fitting.arguments(room=room)
        count = max(1, await connection.fetchval(fitting.text, *arguments))
        page = await _encode_page(connection, first, read, count, after)
        # Records may take more bytes in the file than in the database.
        while len(page.body) > room and count > 1:
            count = max(1, min(count // 2, count * room // len(page.body)))
            page = await _encode_page(connection, target(), read, count, after)
    return page


async def _encode_page(
    connection: Connection,
    target: ExportTarget,
    read: ExportQuery,
    count: int,
    after: Sequence[Any] | None,
) -> FilePage:
    """The page of ``count`` records after a position."""
    writer = target.writer
    sql, settings = read.copy(count, after)
    end = read.end(count, after)
    parts = [writer.head()]

    async def take(chunk: bytes) -> None:
        parts.append(writer.feed(bytes(chunk)))

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
