"""Compiled reads through a View: one record, a page, a whole export."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.message import Message
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    FromClause,
    Select,
    Text,
    bindparam,
    case,
    cast,
    func,
    literal_column,
    or_,
    select,
)

from penstockd.catalog import MOVING, Field, Kind
from penstockd.catalog.record import Codec
from penstockd.catalog.record_json import RecordJson
from penstockd.policy.model import Mask
from penstockd.policy.view import View
from penstockd.query import OrderBy, compile_filter, parse_fields, parse_filter
from penstockd.store.sql import Statement, compile_for_copy, compile_statement
from penstockd.store.tables import row_size

#: The settings that hold the bounds of a range of keys (see ``ExportQuery.copy_range``).
LOWER, UPPER = "penstock.lower", "penstock.upper"

#: The fewest bytes that a row takes in a page if the elements of a list become rows.
ROW_BYTES = literal_column("16", BigInteger())

#: Kinds whose values may be shown otherwise than stored and still be long.
_LONG_IF_MASKED = (Kind.STRING, Kind.LIST, Kind.MAP)


class EtagCodec:
    """Builds messages whose etag covers all that the View shows of the record, except the fields
    in MOVING, which change with hidden fields too.

    A row holds ``fields``, which exceed ``selected``, since the etag covers them all.
    """

    def __init__(self, view: View, selected: Sequence[Field]) -> None:
        self.fields = tuple(view.fields())
        self._view = view
        told = [f for f in self.fields if f.path not in MOVING]
        self._told = [self.fields.index(f) for f in told]
        self._record = Codec(view.dataset, told)
        self._chosen = [self.fields.index(f) for f in selected]
        self._reply = Codec(view.dataset, selected)
        self._reply_places = [*zip(self._chosen, selected, strict=True)]
        self._json = [i for i, f in enumerate(self.fields) if f.is_json]

    def message(self, row: Sequence[Any]) -> Message:
        """The message of a row, with its etag."""
        message: Any = self._reply.message([row[i] for i in self._chosen])
        message.etag = self._etag(row)
        return message  # type: ignore[no-any-return]  # a message of any dataset

    def reply_row(self, row: Sequence[Any]) -> list[Any]:
        """The values of the selected fields of a row, with its etag."""
        etag = self._etag(row)
        return [etag if f.is_etag else row[i] for i, f in self._reply_places]

    def _etag(self, row: Sequence[Any]) -> str:
        record = self._record.message([row[i] for i in self._told])
        return self._view.etag_of(record.SerializeToString(deterministic=True))

    def json_size(self, row: Sequence[Any]) -> int:
        """As ``Codec.json_size``, for all fields that the View shows."""
        return sum(len(row[i]) for i in self._json if row[i] is not None)


def _make_codec(view: View, selected: Sequence[Field]) -> Codec | EtagCodec:
    """The codec for rows that are read by key or in pages."""
    if view.derives_etag and any(f.is_etag for f in selected):
        return EtagCodec(view, selected)
    return Codec(view.dataset, selected)


class RowJson:
    """Writes rows of the codec as JSON: the selected fields, of which it also finds the etag."""

    def __init__(self, view: View, codec: Codec | EtagCodec, selected: Sequence[Field]) -> None:
        self._codec = codec
        self._writer = RecordJson(view.dataset, selected, nulls=view.nulls, hidden=view.hidden)
        places = [i for i, f in enumerate(selected) if f.is_etag]
        self._etag = places[0] if places else None

    def encode(self, row: Sequence[Any]) -> tuple[bytes, str]:
        """The record of a row, and its etag: "" if that is not shown."""
        values = self._codec.reply_row(row)
        etag = None if self._etag is None else values[self._etag]
        return self._writer.encode_row(values), "" if etag is None else str(etag)


class Get:
    """One record by its ``key``."""

    def __init__(self, view: View, fields: str) -> None:
        selected = parse_fields(fields, view)
        self.codec = _make_codec(view, selected)
        self.json = RowJson(view, self.codec, selected)
        condition = view.key_column == bindparam("key", type_=Text())
        self.statement = compile_statement(view.select(self.codec.fields, condition))


class Page:
    """A page of the records that match, in a total order, and the position where it ends.

    A row holds ``width`` values for the codec, then the values of the order's columns, then the
    key, then its size in bytes as the View shows it, so that a page's end reveals nothing else.
    """

    def __init__(self, view: View, filter: str, order_by: str, fields: str) -> None:
        selected = parse_fields(fields, view)
        self.codec = _make_codec(view, selected)
        self.json = RowJson(view, self.codec, selected)
        self.fields = self.codec.fields
        self.width = len(self.fields)
        self._order = OrderBy.parse(order_by, view, view.dataset.key_fields)
        self._key = view.key_column
        self._size = shown_size(view, self.fields).label("__size")
        condition = compile_filter(parse_filter(filter), view) if filter.strip() else None
        self._base = view.select(self.fields, condition)
        self._first = self._compiled(self._base)

    def statement(self, position: Sequence[Any] | None) -> Statement:
        """At most ``limit`` rows, after ``position`` or from the start. They end with the row that
        fills ``room`` bytes or exceeds them."""
        if position is None:
            return self._first
        return self._compiled(self._base.where(self._order.after(position)))

    def position(self, row: Sequence[Any]) -> tuple[Any, ...]:
        """The position of ``row``, the last of a page."""
        return tuple(row[self.width : self.width + len(self._order.fields)])

    def _compiled(self, statement: Select[Any]) -> Statement:
        ends = [c.label(f"__{i}") for i, c in enumerate(self._order.expressions())]
        rows = (
            statement.add_columns(*ends, self._key.label("__key"), self._size)
            .order_by(*self._order.columns())
            .limit(bindparam("limit", type_=BigInteger()))
        )
        return compile_statement(_within_room(rows))


class Scan:
    """All records that match, in order of key, as rows of the key and ``fields``; those after a key
    if it is given.

    ``sizes`` reads the size of each row, as the View shows it, in the same order.
    """

    def __init__(
        self, view: View, fields: Sequence[Field], filter: str, after: str | None = None
    ) -> None:
        condition = compile_filter(parse_filter(filter), view) if filter.strip() else None
        columns = [view.column(f).label(f.column) for f in fields]
        key = view.key_column
        rows = view.narrow([key.label("~key"), *columns], condition)
        sizes = view.narrow([shown_size(view, fields)], condition)
        if after is not None:
            rest = key > bindparam("after", after, type_=Text())
            rows, sizes = rows.where(rest), sizes.where(rest)
        self.statement = compile_statement(rows.order_by(key))
        self.sizes = compile_statement(sizes.order_by(key))


@dataclass(frozen=True, slots=True)
class Unfolding:
    """How the elements of ``list`` become rows beside their record: ``elements`` are the rows of
    one record, ``place`` is their order. ``outer`` keeps a record without elements as one row."""

    list: Field
    elements: FromClause
    place: ColumnElement[Any]
    outer: bool


class ExportQuery:
    """All matching records, as COPY reads them, from the start or from a position on.

    ``columns`` are the expressions of what to read, in the types that a format needs. With an
    ``unfolding``, a record may have several rows, which follow each other; limits, positions and
    ranges still count records.
    """

    def __init__(
        self,
        view: View,
        columns: Sequence[ColumnElement[Any]],
        *,
        filter: str,
        order_by: str,
        unfolding: Unfolding | None = None,
    ) -> None:
        self._unfolding = unfolding
        self._order = OrderBy.parse(order_by, view, view.dataset.key_fields)
        self._key, self._by_key = view.key_column, not view.dataset.joins_key
        self._view = view
        condition = compile_filter(parse_filter(filter), view) if filter.strip() else None
        # COPY goes by places. Names of columns could be taken for those that the order names.
        self._columns = [c.label(f"__c{i}") for i, c in enumerate(columns)]
        ends = [c.label(f"__{i}") for i, c in enumerate(self._order.expressions())]
        self._ends = view.narrow(ends, condition)
        self._condition = condition

    def copy(self, limit: int, after: Sequence[Any] | None = None) -> tuple[str, Mapping[str, str]]:
        """SQL for COPY and the settings it reads (see ``store.sql``). 0 means no limit."""
        return compile_for_copy(self._list_rows(self._columns, limit, after))

    @property
    def splittable(self) -> bool:
        """Whether consecutive ranges of keys yield the whole export in its order."""
        first = self._order.sorts[0]
        return self._by_key and len(self._order.sorts) == 1 and not first.descending

    def copy_range(self, *, last: bool) -> tuple[str, Mapping[str, str]]:
        """The records of the keys from setting LOWER up to but not including UPPER, in order of the
        keys as text; the ``last`` range has no UPPER. The returned settings contain neither."""
        statement = self._unfold(self._columns).where(self._key >= _read_setting(LOWER))
        if not last:
            statement = statement.where(self._key < _read_setting(UPPER))
        return compile_for_copy(statement.order_by(self._key, *self._places))

    def fitting(
        self, fields: Sequence[Field], limit: int, after: Sequence[Any] | None
    ) -> Statement:
        """The number of the first records after a position, at most ``limit``, up to the one that
        fills ``room`` bytes or exceeds them, by the sizes of ``fields`` as the View shows them."""
        size = self._sum_size(fields).label("__size")
        rows = self._from(self._view.narrow([size], self._condition), after)
        within = _within_room(rows.limit(_count_literal(limit)))
        return compile_statement(select(func.count()).select_from(within.subquery()))

    def count(self, most: int, limit: int = 0) -> Statement:
        """The number of rows of the first ``limit`` records (0: all), counted up to ``most``."""
        one: list[ColumnElement[Any]] = [literal_column("1").label("__one")]
        rows = self._list_rows(one, limit) if limit else self._unfold(one)
        rows = rows.limit(_count_literal(most))
        return compile_statement(select(func.count()).select_from(rows.subquery()))

    def first_where(
        self,
        test: Callable[[int, ColumnElement[Any]], ColumnElement[bool] | None],
        limit: int,
    ) -> Statement | None:
        """The key of one of the first ``limit`` records (0: all) that has a value which meets
        ``test``, and the index of the value's column. None if ``test`` returns None for every
        column."""
        read = [*self._columns, self._key.label("__key")]
        rows = self._list_rows(read, limit) if limit else self._unfold(read)
        *columns, key = rows.subquery().columns
        found = [(test(i, c), i) for i, c in enumerate(columns)]
        tests = [(condition, i) for condition, i in found if condition is not None]
        if not tests:
            return None
        place = case(*((condition, _count_literal(i)) for condition, i in tests))
        met = or_(*(condition for condition, _ in tests))
        return compile_statement(select(key, place).where(met).limit(_count_literal(1)))

    def step(self, keys: int) -> Statement:
        """The key ``keys`` places after key ``after``; keys that the caller may not see count."""
        after = self._key >= bindparam("after", type_=Text())
        statement = select(self._key).where(after).order_by(self._key)
        return compile_statement(statement.offset(_count_literal(keys)).limit(_count_literal(1)))

    def end(self, limit: int, after: Sequence[Any] | None = None) -> Statement:
        """The position of record ``limit``, and of the one after it if there is one."""
        statement = self._from(self._ends, after)
        return compile_statement(
            statement.offset(_count_literal(limit - 1)).limit(_count_literal(2))
        )

    def first_key(self, after: Sequence[Any] | None) -> Statement:
        """The key of the first record after a position."""
        keys = self._view.narrow([self._key.label("__key")], self._condition)
        return compile_statement(self._from(keys, after).limit(_count_literal(1)))

    @property
    def _places(self) -> list[ColumnElement[Any]]:
        """The order of the rows of one record."""
        return [] if self._unfolding is None else [self._unfolding.place]

    def _unfold(
        self, columns: Sequence[ColumnElement[Any]], *, checked: bool = False
    ) -> Select[Any]:
        """The rows of all records; ``checked`` if the caller adds the condition itself."""
        condition, unfolding = None if checked else self._condition, self._unfolding
        if unfolding is None:
            return self._view.narrow(columns, condition)
        return self._view.narrow(columns, condition, unfolding.elements, outer=unfolding.outer)

    def _list_rows(
        self,
        columns: Sequence[ColumnElement[Any]],
        limit: int,
        after: Sequence[Any] | None = None,
    ) -> Select[Any]:
        """The rows of the first ``limit`` records after a position, in order; 0: of all."""
        if self._unfolding is None or not limit:
            rows = self._from(self._unfold(columns), after)
            return rows.order_by(*self._places).limit(_count_literal(limit) if limit else None)
        keys = self._from(self._view.narrow([self._key], self._condition), after)
        chosen = self._key.in_(keys.limit(_count_literal(limit)).correlate(None))
        rows = self._unfold(columns, checked=True).where(chosen)
        return rows.order_by(*self._order.columns(), *self._places)

    def _sum_size(self, fields: Sequence[Field]) -> ColumnElement[int]:
        """The size of a record's rows, which repeat all fields but the list of the elements."""
        if self._unfolding is None:
            return shown_size(self._view, fields)
        unfolded = self._unfolding.list
        repeated = shown_size(self._view, [f for f in fields if f is not unfolded])
        column = self._view.column(unfolded)
        count = func.coalesce(func.jsonb_array_length(column), literal_column("1"))
        rows = cast(func.greatest(count, literal_column("1")), BigInteger())
        return (repeated + ROW_BYTES) * rows + shown_size(self._view, [unfolded])

    def _from(self, statement: Select[Any], after: Sequence[Any] | None) -> Select[Any]:
        if after is not None:
            statement = statement.where(self._order.after(after))
        return statement.order_by(*self._order.columns())


def shown_size(view: View, fields: Sequence[Field]) -> ColumnElement[int]:
    """The size in bytes of a row's values of some fields, as the View shows them: the stored size
    would tell how long a masked value is. What is never large counts 0, like hashes."""
    size: ColumnElement[int] = literal_column(row_size(filter(view.is_whole, fields)), BigInteger())
    for field in fields:
        if view.is_whole(field) or field.kind not in _LONG_IF_MASKED:
            continue
        if view.mask(field) not in (Mask.NULL, Mask.HASH):
            length = func.octet_length(cast(view.column(field), Text()), type_=BigInteger())
            size = size + func.coalesce(length, literal_column("0"))
    return size


def _within_room(rows: Select[Any]) -> Select[Any]:
    """The first of ordered rows, up to the row that fills ``room`` bytes or exceeds them; the last
    column is a row's size."""
    ordered = rows.subquery()
    size = list(ordered.columns)[-1]
    # The window sums the sizes in the order of the subquery, which the rows keep.
    before = func.sum(size).over(rows=(None, 0)) - size
    summed = select(*ordered.columns, before.label("__before")).subquery()
    *columns, sum_before = summed.columns
    return select(*columns).where(sum_before < bindparam("room", type_=BigInteger()))


def _read_setting(name: str) -> ColumnElement[str]:
    """A setting's value, read once per statement."""
    return literal_column(f"(SELECT current_setting('{name}'))", Text())


def _count_literal(number: int) -> ColumnElement[Any]:
    """A row count as SQL text: it is an int of ours, and a literal gives COPY a better plan."""
    return literal_column(str(int(number)))
