"""Filters as SQLAlchemy expressions. Clients' texts are always bind parameters.

Negations are pushed down to the tests, where ``IS NOT TRUE`` makes an unset field's unknown into
the false that ``resolve_comparison`` promises; tests that are not negated stay bare, so that they
can use an index.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from typing import Any, Final

import orjson
from sqlalchemy import (
    REAL,
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Date,
    DateTime,
    Double,
    Integer,
    Numeric,
    String,
    Text,
    and_,
    case,
    cast,
    exists,
    func,
    literal,
    literal_column,
    not_,
    or_,
    select,
    true,
)
from sqlalchemy import false as sql_false
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.sql.selectable import Exists
from sqlalchemy.types import TypeEngine

from penstockd.catalog import Field, Kind
from penstockd.query.matches import Compare, Present, TextPattern
from penstockd.query.members import member_predicate
from penstockd.query.names import Names
from penstockd.query.resolve import Reach, Test, default_of, resolve_comparison
from penstockd.query.syntax import And, Expression, Not, Or

#: The SQL type to which a value of each kind is bound, and a JSON text of it is cast.
_TYPES: Final[Mapping[Kind, TypeEngine[Any]]] = {
    Kind.STRING: Text(),
    Kind.ENUM: Text(),
    Kind.BOOL: Boolean(),
    Kind.INT32: Integer(),
    Kind.INT64: BigInteger(),
    Kind.UINT32: BigInteger(),
    Kind.UINT64: Numeric(),
    Kind.FLOAT: Double(),
    Kind.DOUBLE: Double(),
    Kind.DECIMAL: Numeric(),
    Kind.DATE: Date(),
    Kind.TIMESTAMP: DateTime(timezone=True),
}
_TEXTS: Final = (Kind.STRING, Kind.ENUM)
_COMPARE: Final[Mapping[str, Callable[[Any, Any], ColumnElement[bool]]]] = {
    "=": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


def compile_filter(expression: Expression, names: Names) -> ColumnElement[bool]:
    """The filter as a predicate for WHERE, where NULL counts as false; do not negate it.

    Raises FilterError as ``resolve_comparison`` does.
    """
    return _render_node(expression, names, True)


def make_operand(kind: Kind, column: ColumnElement[Any]) -> ColumnElement[Any]:
    """The column as it is compared and sorted: strings by bytes, even if a mask made them."""
    if kind not in _TEXTS:
        return column
    if (
        isinstance(column, Column)
        and isinstance(column.type, String)
        and column.type.collation == "C"
    ):
        return column
    return column.collate("C")


def bind_value(kind: Kind, value: Any) -> ColumnElement[Any]:
    """A canonical value as a bind parameter of its kind's SQL type."""
    if kind in (Kind.LIST, Kind.MAP):
        # As text: the encoding of a jsonb parameter depends on the driver's setup.
        return cast(literal(orjson.dumps(value).decode(), Text()), JSONB)
    if isinstance(value, dt.date) and value.year in (dt.MINYEAR, dt.MAXYEAR):
        # asyncpg sends Python's first and last dates as -infinity and infinity.
        return cast(literal(value.isoformat(), Text()), _TYPES[kind])
    return literal(value, _TYPES[kind])


def _render_node(node: Expression, names: Names, wanted: bool) -> ColumnElement[bool]:
    match node:
        case Not(term):
            return _render_node(term, names, not wanted)
        case And(terms) | Or(terms):
            parts = [_render_node(t, names, wanted) for t in terms]
            if not parts:
                return true() if wanted else sql_false()
            return and_(*parts) if isinstance(node, And) is wanted else or_(*parts)
    tests = [_render_test(t) for t in resolve_comparison(node, names)]
    if wanted:
        return or_(*tests) if len(tests) > 1 else tests[0]
    return (
        and_(*[_deny_predicate(t) for t in tests]) if len(tests) > 1 else _deny_predicate(tests[0])
    )


def _deny_predicate(predicate: ColumnElement[bool]) -> ColumnElement[bool]:
    if isinstance(predicate, Exists):
        return not_(predicate)
    return predicate.is_not(true())


def _render_test(test: Test) -> ColumnElement[bool]:
    column = test.names.column(test.field)
    match test.reach:
        case Reach.COLUMN:
            predicate = _match_value(test, make_operand(test.leaf.kind, column))
        case Reach.KEY:
            predicate = _key_predicate(test, column)
        case Reach.ELEMENT:
            predicate = _element_predicate(test, column)
        case Reach.MEMBER:
            predicate = member_predicate(test.match, column, test.keys)
    for wrap in reversed(test.wraps):
        predicate = wrap(predicate)
    return predicate


def _match_value(test: Test, value: ColumnElement[Any]) -> ColumnElement[bool]:
    kind = test.leaf.kind
    match test.match:
        case Compare(comparator, wanted):
            return _COMPARE[comparator](value, bind_value(kind, wanted))
        case TextPattern() as pattern:
            like = value.like(literal(pattern.like, Text()))
            return not_(like) if pattern.negated else like
        case Present(None):
            return value.is_not(None)
        case Present(default):
            return value != bind_value(kind, default)


def _key_predicate(test: Test, column: ColumnElement[Any]) -> ColumnElement[bool]:
    key = literal(test.keys[0], Text())
    held = func.jsonb_extract_path_text(column, key, type_=Text())
    if test.leaf is test.field:
        return held.is_not(None)
    if len(test.keys) == 1:
        return _match_value(test, _type_text(test.leaf, held))
    message = func.jsonb_extract_path(column, key, type_=JSONB())
    member = _member_column(test.leaf, message, test.keys[1:])
    return _match_value(test, case((held.is_not(None), member)))


def _element_predicate(test: Test, column: ColumnElement[Any]) -> ColumnElement[bool]:
    kind, match = test.leaf.kind, test.match
    if not test.keys:
        if isinstance(match, Compare) and kind in (Kind.STRING, Kind.ENUM, Kind.BOOL):
            # A GIN index supports containment only.
            return column.op("@>", is_comparison=True)(bind_value(Kind.LIST, [match.value]))
        text = func.jsonb_array_elements_text(column, type_=Text()).column_valued()
        return exists(
            select(literal_column("1")).where(_match_value(test, _type_text(test.leaf, text)))
        )
    element = func.jsonb_array_elements(column, type_=JSONB()).column_valued()
    value = _member_column(test.leaf, element, test.keys)
    return exists(select(literal_column("1")).where(_match_value(test, value)))


def _member_column(
    leaf: Field, holder: ColumnElement[Any], keys: tuple[str, ...]
) -> ColumnElement[Any]:
    """A field of a JSON message. A missing field without presence has its default."""
    steps = [literal(k, Text()) for k in keys]
    value = _type_text(leaf, func.jsonb_extract_path_text(holder, *steps, type_=Text()))
    default = None if leaf.nullable else default_of(leaf)
    return value if default is None else func.coalesce(value, bind_value(leaf.kind, default))


def _type_text(leaf: Field, text: ColumnElement[Any]) -> ColumnElement[Any]:
    """The text of a JSON value as a value of the leaf's kind; only for strings is "" a value."""
    if leaf.kind in _TEXTS:
        return make_operand(leaf.kind, text)
    text = func.nullif(text, literal_column("''"))
    if leaf.kind is Kind.TIMESTAMP:
        # Cut to microseconds, as everywhere; the cast alone would round.
        text = func.regexp_replace(text, literal_column(r"'(\.\d{6})\d+'"), literal_column(r"'\1'"))
    if leaf.kind is Kind.FLOAT:
        return cast(cast(text, REAL()), Double())
    return cast(text, _TYPES[leaf.kind])
