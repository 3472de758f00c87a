"""Comparisons with members of a Struct, whose values have the type that their writer gave them.

The literal says what is asked for: ``"5"`` a text, ``5`` a number, ``true`` a boolean, any other
bare word a text. A value of another type is different: ``=`` and the orders are false of it, ``!=``
is true. A member that is null or absent is not set, so that every comparison with it is false.
``:`` also looks for the value among the elements of a list and, if it is a text, among the names of
the members of an object. Nothing is cast, so that no value makes PostgreSQL fail; numbers compare
exactly.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

import orjson
from sqlalchemy import ColumnElement, Text, and_, case, cast, func, literal, literal_column, or_
from sqlalchemy.dialects.postgresql import JSONB

from penstockd.query.errors import FilterError, shorten_input
from penstockd.query.matches import Compare, Match, Present, TextPattern, make_pattern
from penstockd.query.syntax import Comparison

#: The numbers of JSON.
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_BOOLS: Final[Mapping[str, bool]] = {"true": True, "false": False}
_ORDERS: Final[Mapping[str, Callable[[Any, Any], Any]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def read_member_match(comparison: Comparison) -> Match:
    """What a comparison asks of the member that it names: the value of a Compare is a str, a bool
    or a Decimal. Raises FilterError."""
    given, comparator = comparison.literal, comparison.comparator
    if comparator == ":" and given.star:
        return Present()
    if given.text == "null" and not given.quoted:
        raise FilterError(
            "null is not a value; "
            f"write NOT {shorten_input(comparison.name)}:* for what is null or not set",
            given.position,
        )
    if given.claim:
        return Compare(comparator, given.text)  # the claim's values will be texts
    value = _read_value(comparison)
    if comparator in _ORDERS:
        if isinstance(value, bool):
            raise FilterError(
                "true and false have no order: compare with = or !=", comparison.position
            )
        return Compare(comparator, value)
    if not (given.leading or given.trailing):
        return Compare(comparator, value)
    if comparator == ":":
        raise FilterError(
            "a member of a Struct is compared with a wildcard by = or !=", given.position
        )
    return make_pattern(given, negated=comparator == "!=")


def _read_value(comparison: Comparison) -> str | bool | Decimal:
    given = comparison.literal
    if given.quoted:
        return given.text
    if given.text in _BOOLS:
        return _BOOLS[given.text]
    if not _NUMBER.fullmatch(given.text):
        return given.text
    try:
        value, nearest = Decimal(given.text), float(given.text)
    except ArithmeticError:  # an exponent beyond what a Decimal can have
        value, nearest = Decimal("NaN"), math.inf
    # Others are too long for the store's numbers, or would be.
    if math.isinf(nearest) or (nearest == 0 and value != 0):
        raise FilterError(
            f"the value for '{shorten_input(comparison.name)}' is out of range of double",
            given.position,
        )
    return value or Decimal(0)  # the store refuses zeros with a large exponent


# --- in PostgreSQL ---


def member_predicate(
    match: Match, column: ColumnElement[Any], keys: Sequence[str]
) -> ColumnElement[bool]:
    """The match as a predicate on a member of a jsonb column; it may be NULL, which counts as
    false."""
    member = column
    for key in keys:
        member = _member_of(member, key)
    match match:
        case Present():
            return _is_set(member)
        case TextPattern():
            like = func.coalesce(_text_of(member).like(literal(match.like, Text())), False)
            return and_(_is_set(member), ~like) if match.negated else like
    same = member.op("=", is_comparison=True)(_json_literal(match.value))
    match match.comparator:
        case "=":
            return same
        case "!=":
            return and_(_is_set(member), ~same)
        case ":":
            return or_(same, *_found_within(member, match.value))
    compare = _ORDERS[match.comparator]
    if isinstance(match.value, str):
        predicate = compare(_text_of(member), literal(match.value, Text()))
    else:
        predicate = and_(_is_a(member, "number"), compare(member, _json_literal(match.value)))
    return predicate  # type: ignore[no-any-return]  # of operators


def _found_within(
    member: ColumnElement[Any], wanted: str | bool | Decimal
) -> list[ColumnElement[bool]]:
    listed = member.op("@>", is_comparison=True)(_json_literal([wanted]))
    found = [and_(_is_a(member, "array"), listed)]
    if isinstance(wanted, str):
        found.append(and_(_is_a(member, "object"), _is_set(_member_of(member, wanted))))
    return found


def _member_of(holder: ColumnElement[Any], name: str) -> ColumnElement[Any]:
    """The member with a name; NULL in whatever is no object: with a text, -> never counts the
    elements of a list."""
    return holder.op("->", return_type=JSONB())(cast(literal(name, Text()), Text()))


def _is_a(member: ColumnElement[Any], kind: str) -> ColumnElement[bool]:
    return func.jsonb_typeof(member, type_=Text()) == literal_column(f"'{kind}'")


def _is_set(member: ColumnElement[Any]) -> ColumnElement[bool]:
    return func.jsonb_typeof(member, type_=Text()) != literal_column("'null'")


def _text_of(member: ColumnElement[Any]) -> ColumnElement[Any]:
    """The text that the member is, NULL if it is none; texts compare by their bytes."""
    whole = member.op("#>>", return_type=Text())(literal_column("'{}'::text[]"))
    return case((_is_a(member, "string"), whole)).collate("C")


def _json_literal(value: Any) -> ColumnElement[Any]:
    return cast(literal(_json_text(value), Text()), JSONB)


def _json_text(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ",".join(map(_json_text, value)) + "]"
    return str(value) if isinstance(value, Decimal) else orjson.dumps(value).decode()


# --- in Python ---


def find_member(data: Any, keys: Sequence[str]) -> Any:
    """The member of a Struct that names lead to; None if it is null or absent."""
    for key in keys:
        data = data.get(key) if isinstance(data, dict) else None
    return data


def matches_member(match: Match, value: Any) -> bool:
    """Whether a member that is set passes."""
    match match:
        case Present():
            return True
        case TextPattern():
            return (isinstance(value, str) and match.fits(value)) is not match.negated
    wanted = match.value
    match match.comparator:
        case "=":
            return _is_same(value, wanted)
        case "!=":
            return not _is_same(value, wanted)
        case ":":
            return _is_same(value, wanted) or _holds_value(value, wanted)
    plain = _plain_number(value)
    return type(plain) is type(wanted) and bool(_ORDERS[match.comparator](plain, wanted))


def _holds_value(value: Any, wanted: str | bool | Decimal) -> bool:
    if isinstance(value, list):
        return any(_is_same(v, wanted) for v in value)
    return isinstance(value, dict) and isinstance(wanted, str) and value.get(wanted) is not None


def _is_same(value: Any, wanted: str | bool | Decimal) -> bool:
    plain = _plain_number(value)
    return type(plain) is type(wanted) and bool(plain == wanted)


def _plain_number(value: Any) -> Any:
    """A number with the digits that the store has; other values as they are."""
    return Decimal(repr(value)) if type(value) in (int, float) else value
