"""Names the record that makes a read fail: one with a value that the model cannot express.

The hub stores no such value; another program wrote the table, or the model has changed. Most reads
convert values without looking at each of them. When one fails, the record is searched for, so that
the caller gets RECORD_UNREADABLE with its key and not an internal error.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from sqlalchemy import Text, bindparam, cast

from penstockd.budget import run_offloaded
from penstockd.catalog import Dataset, Field
from penstockd.catalog.record import Codec, explain_unreadable
from penstockd.errors import RecordUnreadable, Refused, RequestTooLarge
from penstockd.policy.read import Scan
from penstockd.policy.view import View
from penstockd.query import compile_filter, parse_filter
from penstockd.store.database import Connection
from penstockd.store.extremes import is_extreme
from penstockd.store.sql import compile_statement

#: Records that are searched at a time.
BATCH_ROWS = 500


@asynccontextmanager
async def name_unreadable(
    find: Callable[[], Awaitable[RecordUnreadable | None]],
) -> AsyncIterator[None]:
    """Read records in the block. If it fails and ``find`` finds the record that causes it, raises
    RecordUnreadable."""
    try:
        yield
    except Exception as exc:
        # A value that does not fit into a cell is too large, or not valid in the model.
        of_value = isinstance(exc, RequestTooLarge) and exc.__cause__ is not None
        if isinstance(exc, Refused) and not of_value:
            raise
        found = await find()
        if found is None:
            raise
        raise found from exc


def naming_unreadable(
    connect: Callable[[], AbstractAsyncContextManager[Connection]],
    view: View,
    fields: Sequence[Field],
    filter: str,
) -> AbstractAsyncContextManager[None]:
    """``name_unreadable`` for the matching records of a View, searched for in a transaction of its
    own."""

    async def find() -> RecordUnreadable | None:
        async with connect() as connection:
            return await find_unreadable(connection, view, fields, filter)

    return name_unreadable(find)


async def find_unreadable(
    connection: Connection, view: View, fields: Sequence[Field], filter: str = ""
) -> RecordUnreadable | None:
    """An error that names a record of a View which cannot be read; None if there is none.

    Takes time in proportion to the records that match. The connection must be in a transaction.
    """
    found = await find_extreme(connection, view, fields, filter)
    if found is not None:
        return found
    scan = Scan(view, fields, filter)
    codec = Codec(view.dataset, fields)
    cursor = await connection.cursor(scan.statement.text, *scan.statement.arguments())
    while rows := await cursor.fetch(BATCH_ROWS):
        if (bad := await run_offloaded(_try_records, view.dataset, codec, rows)) is not None:
            return bad
    return None


async def find_extreme(
    connection: Connection, view: View, fields: Sequence[Field], filter: str = "", key: str = ""
) -> RecordUnreadable | None:
    """As ``find_unreadable``, for dates and times before the year 1 or after 9999, which not even
    the driver can read; of one record if ``key`` is given."""
    condition = compile_filter(parse_filter(filter), view) if filter.strip() else None
    for field in fields:
        column = view.column(field)
        extreme = is_extreme(column, field)
        if extreme is None:
            continue
        shown = [view.key_column.label("__key"), cast(column, Text()).label("__value")]
        rows = view.narrow(shown, condition).where(extreme).limit(1)
        if key:
            rows = rows.where(view.key_column == bindparam("key", type_=Text()))
        statement = compile_statement(rows)
        values = statement.arguments(key=key) if key else statement.arguments()
        row = await connection.fetchrow(statement.text, *values)
        if row is not None:
            return RecordUnreadable(view.dataset.name, row[0], field.path, row[1])
    return None


def _try_records(dataset: Dataset, codec: Codec, rows: Sequence[Any]) -> RecordUnreadable | None:
    for row in map(tuple, rows):
        try:
            codec.message(row[1:])
        except RecordUnreadable as exc:
            return explain_unreadable(dataset, codec.fields, row[1:], row[0]) or exc
    return None
