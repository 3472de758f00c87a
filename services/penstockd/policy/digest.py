"""Reads through a View for comparisons: how many records a range has, and some by their keys."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ARRAY, Text, any_, bindparam, func

from penstockd.catalog import Field
from penstockd.catalog.record import Codec
from penstockd.policy.view import View
from penstockd.query import compile, parse
from penstockd.store.sql import Statement, compile_statement


class Count:
    """How many records match, from key ``lower`` on and, if ``bounded``, before ``upper``."""

    def __init__(self, view: View, filter: str) -> None:
        condition = compile(parse(filter), view) if filter.strip() else None
        key = view.key_column
        rows = view.narrow([func.count()], condition).where(key >= bindparam("lower", type_=Text()))
        self._open = compile_statement(rows)
        self._bounded = compile_statement(rows.where(key < bindparam("upper", type_=Text())))

    def statement(self, *, bounded: bool) -> Statement:
        """One row, one value."""
        return self._bounded if bounded else self._open


class Several:
    """The records whose key is among ``keys``, in order of key."""

    def __init__(self, view: View, fields: Sequence[Field]) -> None:
        wanted = view.key_column == any_(bindparam("keys", type_=ARRAY(Text())))
        self.statement = compile_statement(view.select(fields, wanted).order_by(view.key_column))
        self.codec = Codec(view.dataset, fields)
