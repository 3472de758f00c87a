"""Evaluates filters in Python on records in memory, with exactly the result of SQL."""

from __future__ import annotations

import datetime as dt
import math
import operator
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from typing import Any, Final

from penstockd.catalog import Field, Kind
from penstockd.catalog.values import from_text
from penstockd.query.matches import Compare, Match, Present, TextPattern
from penstockd.query.members import find_member, matches_member
from penstockd.query.names import Names
from penstockd.query.resolve import (
    Reach,
    Test,
    default_of,
    resolve_comparison,
    round_single,
)
from penstockd.query.syntax import And, Expression, Not, Or

#: Matches a record, given as canonical values by field path. A reference's fields are under its
#: alias ("customer.status"), all None if it leads nowhere.
Matcher = Callable[[Mapping[str, Any]], bool]

COMPARE: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def make_matcher(expression: Expression, names: Names) -> Matcher:
    """The filter, resolved once, for many records. Raises FilterError as ``compile_filter`` does.

    The matcher raises KeyError if a record lacks a field that the filter names: an unset field must
    be present as None, since a value that was merely left out would turn a NOT true.
    """
    match expression:
        case Not(term):
            inner = make_matcher(term, names)
            return lambda record: not inner(record)
        case And(terms):
            every = [make_matcher(t, names) for t in terms]
            return lambda record: all([m(record) for m in every])
        case Or(terms):
            some = [make_matcher(t, names) for t in terms]
            return lambda record: any([m(record) for m in some])
    tests = resolve_comparison(expression, names)
    return lambda record: any([_passes_test(t, record) for t in tests])


def named_fields(expression: Expression, names: Names) -> tuple[tuple[str, Field], ...]:
    """The fields that a matcher reads, with the references before them ("customer.").

    Each once, in the order of the expression. Raises FilterError as ``make_matcher`` does.
    """
    match expression:
        case Not(term):
            return named_fields(term, names)
        case And(terms) | Or(terms):
            return tuple(dict.fromkeys(n for t in terms for n in named_fields(t, names)))
    return tuple(dict.fromkeys((t.prefix, t.field) for t in resolve_comparison(expression, names)))


def evaluate_filter(expression: Expression, names: Names, record: Mapping[str, Any]) -> bool:
    """Whether one record matches; see ``make_matcher``. The record holds what the caller sees."""
    return make_matcher(expression, names)(record)


def _passes_test(test: Test, record: Mapping[str, Any]) -> bool:
    values = _reached_values(test, record[test.prefix + test.field.path])
    if test.reach is Reach.MEMBER:
        return any(v is not None and matches_member(test.match, v) for v in values)
    return any(v is not None and _matches_value(test.match, test.leaf.kind, v) for v in values)


def _reached_values(test: Test, value: Any) -> Iterator[Any]:
    if test.reach is Reach.COLUMN or value is None:
        yield value
    elif test.reach is Reach.MEMBER:
        yield find_member(value, test.keys)
    elif test.reach is Reach.ELEMENT:
        for element in value:
            yield _read_value(test.leaf, element, test.keys)
    elif (held := value.get(test.keys[0])) is not None:
        yield held if test.leaf is test.field else _read_value(test.leaf, held, test.keys[1:])


def _read_value(leaf: Field, data: Any, keys: tuple[str, ...]) -> Any:
    """Convert JSON-ready data to a value of the leaf's kind."""
    for key in keys:
        data = data.get(key) if isinstance(data, dict) else None
    value = None if data is None else _from_json(leaf, data)
    if value is None and keys and not leaf.nullable:
        return default_of(leaf)
    return value


def _from_json(leaf: Field, data: Any) -> Any:
    if leaf.kind in (Kind.STRING, Kind.ENUM, Kind.BOOL):
        return data
    if data == "":
        return None
    match leaf.kind:
        case Kind.FLOAT | Kind.DOUBLE:
            return float(data)
        case Kind.DECIMAL:
            return Decimal(data)
        case Kind.DATE:
            return dt.date.fromisoformat(data)
        case Kind.TIMESTAMP:
            return from_text(leaf, data)
    return int(data)


def _matches_value(match: Match, kind: Kind, value: Any) -> bool:
    match match:
        case Compare(comparator, wanted):
            return COMPARE[comparator](_order_key(kind, value), _order_key(kind, wanted))
        case TextPattern() as pattern:
            return pattern.fits(value) is not pattern.negated
        case Present(None):
            return True
        case Present(default):
            return bool(_order_key(kind, value) != _order_key(kind, default))


def _order_key(kind: Kind, value: Any) -> Any:
    """A sort key with PostgreSQL's order: NaN equals itself and is greater than all numbers."""
    if kind is Kind.FLOAT:
        value = round_single(value)
    elif kind is not Kind.DOUBLE:
        return value
    return (True, 0.0) if math.isnan(value) else (False, value)
