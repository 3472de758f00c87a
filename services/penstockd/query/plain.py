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
from penstockd.query.names import Names
from penstockd.query.resolve import (
    Compare,
    Match,
    Present,
    Reach,
    Test,
    TextPattern,
    default_of,
    resolve,
    single,
)
from penstockd.query.syntax import And, Expression, Not, Or

#: Answers for a record, given as canonical values by field path. A reference's fields stand under
#: its alias ("customer.status"), all None if it leads nowhere.
Matcher = Callable[[Mapping[str, Any]], bool]

COMPARE: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def matcher(expression: Expression, names: Names) -> Matcher:
    """The filter, resolved once, for many records. Raises FilterError as ``compile`` does.

    The matcher raises KeyError if a record lacks a field that the filter names: what is not set
    must be there as None, since a value that was merely left out would turn a NOT true.
    """
    match expression:
        case Not(term):
            inner = matcher(term, names)
            return lambda record: not inner(record)
        case And(terms):
            every = [matcher(t, names) for t in terms]
            return lambda record: all([m(record) for m in every])
        case Or(terms):
            some = [matcher(t, names) for t in terms]
            return lambda record: any([m(record) for m in some])
    tests = resolve(expression, names)
    return lambda record: any([_passes(t, record) for t in tests])


def named(expression: Expression, names: Names) -> tuple[tuple[str, Field], ...]:
    """The fields that a matcher reads, with the references before them ("customer.").

    Each once, in the order of the expression. Raises FilterError as ``matcher`` does.
    """
    match expression:
        case Not(term):
            return named(term, names)
        case And(terms) | Or(terms):
            return tuple(dict.fromkeys(n for t in terms for n in named(t, names)))
    return tuple(dict.fromkeys((t.prefix, t.field) for t in resolve(expression, names)))


def evaluate(expression: Expression, names: Names, record: Mapping[str, Any]) -> bool:
    """Whether one record matches; see ``matcher``. The record holds what the caller sees."""
    return matcher(expression, names)(record)


def _passes(test: Test, record: Mapping[str, Any]) -> bool:
    values = _values(test, record[test.prefix + test.field.path])
    return any(v is not None and _matches(test.match, test.leaf.kind, v) for v in values)


def _values(test: Test, value: Any) -> Iterator[Any]:
    if test.reach is Reach.COLUMN or value is None:
        yield value
    elif test.reach is Reach.ELEMENT:
        for element in value:
            yield _read(test.leaf, element, test.keys)
    elif (held := value.get(test.keys[0])) is not None:
        yield held if test.leaf is test.field else _read(test.leaf, held, test.keys[1:])


def _read(leaf: Field, data: Any, keys: tuple[str, ...]) -> Any:
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


def _matches(match: Match, kind: Kind, value: Any) -> bool:
    match match:
        case Compare(comparator, wanted):
            return COMPARE[comparator](_ordered(kind, value), _ordered(kind, wanted))
        case TextPattern(text, leading, trailing, negated):
            return _fits(value, text, leading, trailing) is not negated
        case Present(None):
            return True
        case Present(default):
            return bool(_ordered(kind, value) != _ordered(kind, default))


def _fits(value: str, text: str, leading: bool, trailing: bool) -> bool:
    if leading and trailing:
        return text in value
    return value.endswith(text) if leading else value.startswith(text)


def _ordered(kind: Kind, value: Any) -> Any:
    """A sort key with PostgreSQL's order: NaN equals itself and is greater than all numbers."""
    if kind is Kind.FLOAT:
        value = single(value)
    elif kind is not Kind.DOUBLE:
        return value
    return (True, 0.0) if math.isnan(value) else (False, value)
