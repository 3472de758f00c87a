"""``order_by`` (AIP-132) and the exact place where the next page starts.

Every order ends with the dataset's key, so that it is total: rows that are equal in all requested
names never swap between pages. NULLs come last ascending and first descending, which is
PostgreSQL's own order and that of its indexes; strings are ordered by their bytes, enums by their
names.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from sqlalchemy import Column, ColumnElement, and_, false, or_, tuple_

from penstockd.catalog import Field, Kind
from penstockd.query.errors import FieldUnknown, OrderError, PageTokenError
from penstockd.query.fields import find_struct
from penstockd.query.names import Names
from penstockd.query.sql import bind_value, make_operand

MAX_BYTES: Final = 4096
MAX_KEYS: Final = 8

_NO_ORDER: Final = (Kind.LIST, Kind.MAP, Kind.STRUCT, Kind.BYTES)
_PYTHON: Final[Mapping[Kind, type | tuple[type, ...]]] = {
    Kind.STRING: str,
    Kind.ENUM: str,
    Kind.BOOL: bool,
    Kind.INT32: int,
    Kind.INT64: int,
    Kind.UINT32: int,
    Kind.UINT64: (int, Decimal),  # as the driver reads it
    Kind.FLOAT: float,
    Kind.DOUBLE: float,
    Kind.DECIMAL: Decimal,
    Kind.DATE: dt.date,
    Kind.TIMESTAMP: dt.datetime,
}


@dataclass(frozen=True, slots=True)
class Sort:
    """One column of an order."""

    field: Field
    column: ColumnElement[Any]
    descending: bool

    @property
    def nullable(self) -> bool:
        """Whether there can be NULLs; a masking expression may always return one."""
        return self.field.nullable or not isinstance(self.column, Column)

    def after(self, value: Any) -> ColumnElement[bool]:
        """The rows that come strictly after ``value`` in this column alone."""
        column = self.column
        if value is None:
            return column.is_not(None) if self.descending else false()
        bound = bind_value(self.field.kind, value)
        if self.descending:
            return column < bound
        return or_(column > bound, column.is_(None)) if self.nullable else column > bound

    def same(self, value: Any) -> ColumnElement[bool]:
        """The rows that have ``value`` in this column; NULL equals NULL."""
        if value is None:
            return self.column.is_(None)
        return self.column == bind_value(self.field.kind, value)


@dataclass(frozen=True, slots=True)
class OrderBy:
    """A total order of a dataset's records as one caller sees them."""

    sorts: tuple[Sort, ...]

    @classmethod
    def parse(cls, text: str, names: Names, key: Sequence[Field]) -> OrderBy:
        """The order in a text such as ``name desc, billing_address.city``; empty: by the key.

        The fields of the ``key`` are appended in the direction of the last name (so that one index
        can serve the whole order), unless they were named; names after the whole key have no
        effect: they are checked, then dropped. Raises FieldUnknown for unknown and hidden names,
        OrderError for bad syntax, a name given twice, more than 8 names, and lists, maps, Structs
        and bytes.
        """
        named: dict[str, Sort] = {}
        for name, descending, position in _parse_items(text):
            field = names.field(name)
            if field is None:
                if find_struct(name, names) is not None:
                    raise OrderError("the members of a Struct have no order", position)
                raise FieldUnknown(name, position)
            if field.kind in _NO_ORDER:
                raise OrderError(f"'{name}' has no order", position)
            if field.path in named:
                raise OrderError(f"'{name}' is named twice", position)
            named[field.path] = _make_sort(field, names, descending)
        if len(named) > MAX_KEYS:
            raise OrderError(f"an order may have at most {MAX_KEYS} names")
        sorts = list(named.values())
        open_parts = [f for f in key if f.path not in named]
        if not open_parts:
            last = max(list(named).index(f.path) for f in key)
            return cls(tuple(sorts[: last + 1]))
        descending = bool(sorts) and sorts[-1].descending
        sorts += [_make_sort(f, names, descending) for f in open_parts]
        return cls(tuple(sorts))

    @property
    def fields(self) -> tuple[Field, ...]:
        """The fields of the order, all fields of the key among them."""
        return tuple(s.field for s in self.sorts)

    def columns(self) -> list[ColumnElement[Any]]:
        """The terms of ORDER BY."""
        return [s.column.desc() if s.descending else s.column.asc() for s in self.sorts]

    def expressions(self) -> list[ColumnElement[Any]]:
        """The columns to select in addition, so that a row yields its position."""
        return [s.column for s in self.sorts]

    def after(self, position: Sequence[Any]) -> ColumnElement[bool]:
        """The rows after the one whose order columns have the values ``position`` (canonical).

        Raises PageTokenError if the position does not belong to this order, for example because a
        field has changed its type since the token was issued.
        """
        self._check(position)
        if len(self.sorts) == 1:
            return self.sorts[0].after(position[0])
        if self._uniform:
            columns = tuple_(*[s.column for s in self.sorts])
            values = tuple_(
                *[bind_value(s.field.kind, v) for s, v in zip(self.sorts, position, strict=True)]
            )
            return columns < values if self.sorts[0].descending else columns > values
        return self._steps(position)

    @property
    def _uniform(self) -> bool:
        """Whether PostgreSQL's row comparison has this order, so that an index serves it."""
        first = self.sorts[0].descending
        return all(s.descending is first and not s.nullable for s in self.sorts)

    def _steps(self, position: Sequence[Any]) -> ColumnElement[bool]:
        """Equal in the first n columns and after in the next, for every n."""
        ways: list[ColumnElement[bool]] = []
        equal: list[ColumnElement[bool]] = []
        for sort, value in zip(self.sorts, position, strict=True):
            ways.append(and_(*equal, sort.after(value)))
            equal.append(sort.same(value))
        return or_(*ways)

    def _check(self, position: Sequence[Any]) -> None:
        fits = len(position) == len(self.sorts) and all(
            v is None or _fits_kind(s.field.kind, v)
            for s, v in zip(self.sorts, position, strict=True)
        )
        if not fits:
            raise PageTokenError("the page token belongs to another query")


def _fits_kind(kind: Kind, value: Any) -> bool:
    # Python's bool is an int and its datetime a date; a field's values are not.
    if isinstance(value, bool | dt.datetime):
        return kind is (Kind.BOOL if isinstance(value, bool) else Kind.TIMESTAMP)
    return isinstance(value, _PYTHON[kind])


def _make_sort(field: Field, names: Names, descending: bool) -> Sort:
    return Sort(field, make_operand(field.kind, names.column(field)), descending)


def _parse_items(text: str) -> list[tuple[str, bool, int]]:
    """The name, the direction (whether descending) and the position of each item."""
    if len(text) > MAX_BYTES:
        raise OrderError(f"an order may be at most {MAX_BYTES} bytes long")
    if not text.strip():
        return []
    items: list[tuple[str, bool, int]] = []
    position = 0
    for part in text.split(","):
        at = position + len(part) - len(part.lstrip())
        words = part.split()
        if not words:
            raise OrderError("an order contains an empty name", position)
        if len(words) > 2 or words[1:] not in ([], ["asc"], ["desc"]):
            raise OrderError("an order is written as 'name' or 'name desc', with commas", at)
        items.append((words[0], words[1:] == ["desc"], at))
        position += len(part) + 1
    return items
