"""Records and pages of them through a View: the query, and how one page is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from penstockd.budget import let_others_run
from penstockd.catalog import Field, Kind
from penstockd.errors import RecordUnreadable
from penstockd.policy.read import Get, Page
from penstockd.policy.rendering import Render, render_all
from penstockd.policy.unreadable import find_extreme, name_unreadable
from penstockd.policy.view import View
from penstockd.query import query_digest
from penstockd.reply_room import count_fitting, room_of, value_size
from penstockd.store.database import Database

#: A page takes one more place of its consumer's share for every PLACE_ROWS rows, as far as the
#: share allows (see ``shares``).
PLACE_ROWS = 150
#: How many times the length of its JSON a Struct, and a list or map, may take over gRPC beyond that
#: length: a number of one digit takes eleven bytes in a Struct, a "-1" ten in a list.
STRUCT_RATIO, MANY_RATIO = 8, 3
_RATIOS = {Kind.STRUCT: STRUCT_RATIO, Kind.LIST: MANY_RATIO, Kind.MAP: MANY_RATIO}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Query:
    """A caller's list query, as written."""

    filter: str = ""
    order_by: str = ""
    fields: str = ""
    page_size: int = 0
    page_token: str = ""

    @property
    def said(self) -> dict[str, str]:
        """The content for the audit entry: everything except which page is requested."""
        return {"filter": self.filter, "order_by": self.order_by, "fields": self.fields}

    def bound_to(self, consumer_id: str, view: View, shape: str = "") -> bytes:
        """A digest that binds a page token to the query, its caller, the policy revision and the
        definition of its shape."""
        return query_digest(
            dataset=view.dataset.name,
            filter=self.filter,
            order_by=self.order_by,
            fields=self.fields,
            scope=f"{consumer_id}\n{view.revision}\n{shape}",
        )


@dataclass(frozen=True, slots=True)
class RecordPage(Generic[T]):
    """Records with their keys, and the position of the last one if there are more."""

    records: list[T]
    keys: list[str]
    end: tuple[Any, ...] | None


async def read_record(
    database: Database, view: View, key: str, fields: str, render: Render[T]
) -> T | None:
    """The record with ``key`` as ``render`` makes it, or None. Raises FieldUnknown and
    RecordUnreadable."""
    query = view.prepared(Get, fields)
    statement = query.statement

    async def find() -> RecordUnreadable | None:
        async with database.connection() as connection:
            return await find_extreme(connection, view, query.codec.fields, key=key)

    async with name_unreadable(find), database.connection() as connection:
        row = await connection.fetchrow(statement.text, *statement.arguments(key=key))
    return None if row is None else await render(query, tuple(row))


async def read_page(
    database: Database,
    view: View,
    query: Query,
    size: int,
    position: Sequence[Any] | None = None,
    *,
    render: Render[T],
    surface: str | None = None,
) -> RecordPage[T]:
    """At most ``size`` records after a position, as ``render`` makes them; fewer if they would be
    too large for a reply on ``surface`` (see ``reply_room``).

    Raises FieldUnknown, FilterInvalid, OrderInvalid, PageTokenInvalid, RecordUnreadable.
    """
    page = view.prepared(Page, query.filter, query.order_by, query.fields)
    statement, room = page.statement(position), room_of(surface)

    async def find() -> RecordUnreadable | None:
        async with database.connection() as connection:
            return await find_extreme(connection, view, page.codec.fields, query.filter)

    # Making records from the rows costs time as well as reading them: the share is held until then.
    weight = 1 + size // PLACE_ROWS
    async with name_unreadable(find), database.connection(weight=weight) as connection:
        arguments = statement.arguments(limit=size + 1, room=room)
        rows = await connection.fetch(statement.text, *arguments)
        # If the rows fill the room, others may follow.
        more = len(rows) > size or sum(row[-1] for row in rows) >= room
        shown = [tuple(row[: page.width]) for row in rows[:size]]
        sizes = await RowSizes(page.fields, surface).measure_all(shown)
        count = count_fitting(sizes, int, room)
        more = more or count < len(shown)
        records = await render_all(page, shown[:count], render)
    end = page.position(tuple(rows[count - 1])) if more else None
    return RecordPage(records, [row[-2] for row in rows[:count]], end)


class RowSizes:
    """The most bytes that rows of some fields take in a reply."""

    def __init__(self, fields: Sequence[Field], surface: str | None) -> None:
        self._surface = surface
        self._ratios = [(i, _RATIOS[f.kind]) for i, f in enumerate(fields) if f.kind in _RATIOS]

    async def measure_all(self, rows: Sequence[Sequence[Any]]) -> list[int]:
        """The sizes of rows."""
        sizes = []
        for row in rows:
            sizes.append(self.measure(row))
            await let_others_run()
        return sizes

    def measure(self, row: Sequence[Any]) -> int:
        """The size of a row."""
        size = value_size(row, self._surface)
        if self._surface != "REST":
            size += sum(ratio * len(row[i]) for i, ratio in self._ratios if row[i] is not None)
        return size
