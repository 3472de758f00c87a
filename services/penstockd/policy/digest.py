"""Reads through a View for comparisons: the count of a range, and records by their keys."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ARRAY, Text, any_, bindparam, func, literal_column, select

from penstockd.catalog import Field
from penstockd.catalog.record import Codec
from penstockd.policy.view import View
from penstockd.query import compile_filter, parse_filter
from penstockd.store.sql import Statement, compile_statement


class Count:
    """Counts the records that match, from key ``lower`` on and, if ``bounded``, before ``upper``.
    The count stops at ``most`` + 1."""

    def __init__(self, view: View, filter: str, most: int) -> None:
        condition = compile_filter(parse_filter(filter), view) if filter.strip() else None
        key = view.key_column
        one = view.narrow([literal_column("1").label("__one")], condition)
        self._rows = one.where(key >= bindparam("lower", type_=Text()))
        self._bound = key < bindparam("upper", type_=Text())
        self._most = most

    def statement(self, *, bounded: bool) -> Statement:
        """A statement that returns one row with one value."""
        rows = self._rows.where(self._bound) if bounded else self._rows
        some = rows.limit(literal_column(str(self._most + 1))).subquery()
        return compile_statement(select(func.count()).select_from(some))


class Several:
    """The records with any of ``keys``, in order of key."""

    def __init__(self, view: View, fields: Sequence[Field]) -> None:
        wanted = view.key_column == any_(bindparam("keys", type_=ARRAY(Text())))
        self.statement = compile_statement(view.select(fields, wanted).order_by(view.key_column))
        self.codec = Codec(view.dataset, fields)
