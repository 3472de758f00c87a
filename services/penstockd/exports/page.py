"""One bounded page of the records that match, as a complete file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from penstockd.audit.given import GivenRecords, given_set
from penstockd.calls import Call
from penstockd.errors import RequestTooLarge
from penstockd.exports.plan import ExportTarget, open_target
from penstockd.policy.pages import Query
from penstockd.policy.read import ExportQuery
from penstockd.policy.unreadable import naming_unreadable
from penstockd.policy.view import View
from penstockd.reply_room import room_of
from penstockd.shapes.columns import ShapedView
from penstockd.store.database import Connection, Database
from penstockd.store.sql import apply_settings

#: How many times the size of a page the database's stream of it may have, at most: rows of numbers
#: and empty values are larger in the stream.
STREAM_RATIO = 8


@dataclass(frozen=True, slots=True)
class FilePage:
    """A page as a file in its format.

    ``keys`` is the encoded set of its ``records`` records, ``rule_fields`` what they show (see
    ``Call.rule``), ``end`` the position where the page ends: None on the last page. ``rows`` are
    more than the records if a shape makes rows of a list.
    """

    body: bytes
    content_type: str
    file_name: str
    rows: int
    records: int
    keys: bytes
    rule_fields: str
    end: Sequence[Any] | None

    def given(self, call: Call, view: View) -> GivenRecords:
        """Its records, for the audit."""
        rule = call.rule(view, self.rule_fields)
        return given_set(view.dataset.name, rule, self.records, self.keys)


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
    FilterInvalid, OrderInvalid, RecordUnreadable, RequestTooLarge if the rows of one record are too
    large and, for a choice that the format does not have, ValueInvalid.
    """

    def target() -> ExportTarget:
        return open_target(view, query.fields, shaped, format, **choices)

    made, room = target(), room_of(surface)
    read = ExportQuery(
        view,
        made.columns,
        filter=query.filter,
        order_by=query.order_by,
        unfolding=made.unfolding,
    )
    async with naming_unreadable(database.snapshot, view, made.shown, query.filter):
        while True:
            try:
                return await _read_page(database, made, target, read, size, after, room)
            except _PageOverflow as overflow:
                size, made = overflow.count // 2, target()
            if not size:
                await _refuse_record(database, read, after, room)


async def _read_page(
    database: Database,
    made: ExportTarget,
    target: Callable[[], ExportTarget],
    read: ExportQuery,
    size: int,
    after: Sequence[Any] | None,
    room: int,
) -> FilePage:
    """The page of at most ``size`` records, fewer if they would not fit into ``room`` bytes, by
    ``made`` or, for another attempt, by what ``target`` makes. Raises _PageOverflow."""
    async with database.snapshot() as connection:
        fitting = read.fitting(made.shown, size, after)
        arguments = fitting.arguments(room=room)
        count = max(1, await connection.fetchval(fitting.text, *arguments))
        page = await _encode_page(connection, made, read, count, after, room)
        # Records may take more bytes in the file than in the database.
        while len(page.body) > room and count > 1:
            count = max(1, min(count // 2, count * room // len(page.body)))
            page = await _encode_page(connection, target(), read, count, after, room)
    return page


class _PageOverflow(Exception):
    """Rows of the elements of ``count`` records are far larger than a page; the rest of them is not
    read."""

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.count = count


async def _refuse_record(
    database: Database, read: ExportQuery, after: Sequence[Any] | None, room: int
) -> None:
    """Raise RequestTooLarge, which names the first record after a position; a record whose rows
    were just too large may be gone."""
    statement = read.first_key(after)
    async with database.snapshot() as connection:
        key = await connection.fetchval(statement.text, *statement.arguments())
    raise RequestTooLarge(
        f"the rows of the record '{str(key)[:80]}' take more than the {room} bytes of a page;"
        " export them as a stream"
    )


async def _encode_page(
    connection: Connection,
    target: ExportTarget,
    read: ExportQuery,
    count: int,
    after: Sequence[Any] | None,
    room: int,
) -> FilePage:
    """The page of ``count`` records after a position. Raises _PageOverflow."""
    writer = target.writer
    sql, settings = read.copy(count, after)
    end = read.end(count, after)
    parts = [writer.head()]
    taken = 0

    async def take(chunk: bytes) -> None:
        nonlocal taken
        parts.append(writer.feed(bytes(chunk)))
        taken += max(len(chunk) // STREAM_RATIO, len(parts[-1]))
        if target.unfolding is not None and taken > room:
            raise _PageOverflow(count)

    await apply_settings(connection, settings)
    await connection.copy_from_query(sql, output=take, format="binary")
    ends = await connection.fetch(end.text, *end.arguments())
    parts += writer.ending()
    keys = writer.keys.encode()  # which counts those of the last rows
    return FilePage(
        b"".join(parts),
        writer.content_type,
        writer.file_name,
        writer.rows,
        writer.keys.count,
        keys,
        target.rule_fields,
        tuple(ends[0]) if len(ends) > 1 else None,
    )
