"""Looks up a comparison's name and types its literal, for both evaluators.

So a filter is refused for the same reasons, and has the same meaning, in PostgreSQL and in Python.

A comparison is true or false, never unknown: with an unset field it is false, whatever the
comparator, so if x is not set ``x != 1`` is false and ``NOT x = 1`` true. A field is *present*
(``x:*``) if it is set. A field without presence in the model, which is always set, is present if it
is not its default ("", 0, false, the first enum value); a list or map, if it is not empty; a
message, if any of its fields is set.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final

from penstockd.catalog import Field, Kind
from penstockd.catalog.leniency import TRUNCATING
from penstockd.catalog.values import ValueRefused, default_value, text_parser
from penstockd.query.errors import FieldUnknown, FilterError, shorten_input
from penstockd.query.matches import Compare, Match, Present, make_pattern
from penstockd.query.members import read_member_match
from penstockd.query.names import Names, Wrap
from penstockd.query.syntax import MAX_STEPS, Comparison, Literal

#: Kinds whose values have no order.
_UNORDERED: Final = (Kind.BOOL, Kind.ENUM)


class Reach(enum.Enum):
    """The place of the values that a test reads."""

    COLUMN = enum.auto()  # the column's own value
    KEY = enum.auto()  # the value of one key of a map
    ELEMENT = enum.auto()  # each element of a list: the test is true if any element passes
    MEMBER = enum.auto()  # a member of a Struct, which ``members`` compares


@dataclass(frozen=True, slots=True)
class Test:
    """One question about one field, with nothing left to look up.

    ``leaf`` is the field with the kind of the matched value; it differs from ``field`` only inside
    lists and maps. ``keys`` lead into the jsonb value: for KEY the map's key first, for MEMBER
    names. ``wraps`` (outermost first) and ``prefix`` ("customer.") show how references were
    followed to get to
    ``names``.
    """

    names: Names
    field: Field
    leaf: Field
    match: Match
    reach: Reach = Reach.COLUMN
    keys: tuple[str, ...] = ()
    wraps: tuple[Wrap, ...] = ()
    prefix: str = ""


@dataclass(frozen=True, slots=True)
class _NamedPlace:
    """The result of looking up a name: a field and the steps after it, or a message (no field)."""

    names: Names
    field: Field | None
    rest: tuple[str, ...]
    wraps: tuple[Wrap, ...]
    prefix: str


def resolve_comparison(comparison: Comparison, names: Names) -> tuple[Test, ...]:
    """The tests of a comparison, usually one; the comparison is true if any of them passes.

    Raises FilterError for names that are unknown or hidden (with the same text), comparators that
    the field's kind does not support, and literals that are not valid values of it.
    """
    place = _locate_name(comparison, comparison.steps, names, (), "")
    if place.field is None:
        return _message_tests(comparison, place, names)
    match place.field.kind:
        case Kind.LIST:
            return (_list_test(comparison, place, place.field),)
        case Kind.MAP:
            return (_map_test(comparison, place, place.field),)
        case Kind.STRUCT:
            return (_struct_test(comparison, place, place.field),)
    if place.rest:
        raise FieldUnknown(comparison.name, comparison.position)
    return (_make_test(place, place.field, place.field, _make_match(comparison, place.field)),)


def _locate_name(
    comparison: Comparison,
    steps: tuple[str, ...],
    names: Names,
    wraps: tuple[Wrap, ...],
    prefix: str,
) -> _NamedPlace:
    # A quoted step with a dot in it can only be the key of a map; joined, it would look like a
    # path.
    whole = next((n for n, step in enumerate(steps) if "." in step), len(steps))
    for n in range(whole, 0, -1):
        field = names.field(".".join(steps[:n]))
        if field is not None:
            return _NamedPlace(names, field, steps[n:], wraps, prefix)
    followed = names.follow(steps[0]) if len(steps) > 1 else None
    if followed is not None:
        inner, wrap = followed
        return _locate_name(comparison, steps[1:], inner, (*wraps, wrap), f"{prefix}{steps[0]}.")
    if whole == len(steps) and _find_members(names, steps):
        return _NamedPlace(names, None, steps, wraps, prefix)
    raise FieldUnknown(comparison.name, comparison.position)


def _find_members(names: Names, steps: tuple[str, ...]) -> list[Field]:
    """The visible fields of a message, by its proto or JSON path."""
    start = ".".join(steps) + "."
    return [f for f in names.fields() if f.path.startswith(start) or f.json_path.startswith(start)]


def _make_test(place: _NamedPlace, field: Field, leaf: Field, match: Match, **more: Any) -> Test:
    return Test(place.names, field, leaf, match, wraps=place.wraps, prefix=place.prefix, **more)


def _message_tests(comparison: Comparison, place: _NamedPlace, names: Names) -> tuple[Test, ...]:
    """``address:*`` asks about the message, ``address:city`` about a field of it."""
    literal = comparison.literal
    if comparison.comparator != ":":
        raise FilterError(
            f"'{shorten_input(comparison.name)}' is a message: compare one of its fields",
            comparison.position,
        )
    _refuse_claim(literal)
    if literal.star:
        return tuple(
            _make_test(place, f, f, Present()) for f in _find_members(place.names, place.rest)
        )
    steps = (*comparison.steps, *literal.text.split("."))
    if len(steps) > MAX_STEPS:
        raise FieldUnknown(".".join(steps), comparison.position)
    star = Literal("*", literal.position, leading=True, trailing=True)
    asked = Comparison(steps, ":", star, comparison.position)
    return resolve_comparison(asked, names)


def _list_test(comparison: Comparison, place: _NamedPlace, field: Field) -> Test:
    if comparison.comparator != ":":
        raise FilterError(
            f"'{shorten_input(comparison.name)}' is repeated: ask whether it has a value, as "
            f"{shorten_input(comparison.name)}:value",
            comparison.position,
        )
    if not place.rest:
        if comparison.literal.star:
            return _make_test(place, field, field, Present([]))
        if field.element is None:
            raise FilterError(
                f"'{shorten_input(comparison.name)}' holds messages: name one of their fields, as "
                f"{shorten_input(comparison.name)}.name:value",
                comparison.position,
            )
    leaf, keys = _look_inside(comparison, place.names, field, place.rest)
    match = _make_match(comparison, leaf)
    return _make_test(place, field, leaf, match, reach=Reach.ELEMENT, keys=keys)


def _map_test(comparison: Comparison, place: _NamedPlace, field: Field) -> Test:
    literal = comparison.literal
    if not place.rest:
        if comparison.comparator != ":":
            raise FilterError(
                f"'{shorten_input(comparison.name)}' is a map: compare one of its keys, as "
                f"{shorten_input(comparison.name)}.key = value",
                comparison.position,
            )
        if literal.star:
            return _make_test(place, field, field, Present({}))
        _refuse_claim(literal)
        if literal.leading or literal.trailing:
            raise FilterError("the key of a map cannot have a wildcard", literal.position)
        return _make_test(place, field, field, Present(), reach=Reach.KEY, keys=(literal.text,))
    key, deeper = place.rest[0], place.rest[1:]
    if comparison.comparator == ":" and literal.star and not deeper:
        return _make_test(place, field, field, Present(), reach=Reach.KEY, keys=(key,))
    leaf, keys = _look_inside(comparison, place.names, field, deeper)
    match = _make_match(comparison, leaf)
    return _make_test(place, field, leaf, match, reach=Reach.KEY, keys=(key, *keys))


def _struct_test(comparison: Comparison, place: _NamedPlace, field: Field) -> Test:
    """``attributes:*`` asks for the Struct, ``attributes:color`` for a member of it."""
    literal, keys = comparison.literal, place.rest
    if keys:
        match = read_member_match(comparison)
        return _make_test(place, field, field, match, reach=Reach.MEMBER, keys=keys)
    if comparison.comparator != ":":
        raise FilterError(
            f"'{shorten_input(comparison.name)}' is a Struct: compare one of its members, as "
            f"{shorten_input(comparison.name)}.member = value",
            comparison.position,
        )
    if literal.star:
        return _make_test(place, field, field, Present())
    _refuse_claim(literal)
    if literal.leading or literal.trailing:
        raise FilterError("the name of a member cannot have a wildcard", literal.position)
    keys = (literal.text,) if literal.quoted else tuple(literal.text.split("."))
    if len(keys) > MAX_STEPS:
        raise FieldUnknown(f"{comparison.name}.{literal.text}", comparison.position)
    return _make_test(place, field, field, Present(), reach=Reach.MEMBER, keys=keys)


def _look_inside(
    comparison: Comparison, names: Names, field: Field, steps: tuple[str, ...]
) -> tuple[Field, tuple[str, ...]]:
    """The content of a list or map, or a field of its messages, and the JSON names that lead
    there."""
    if field.element is not None and not steps:
        return field.element, ()
    leaf = _find_member(field, names.members(field), steps)
    if leaf is None:
        raise FieldUnknown(comparison.name, comparison.position)
    if leaf.repeated:
        raise FilterError(
            f"'{shorten_input(comparison.name)}' is repeated within a list or map, "
            "which filters do not look into",
            comparison.position,
        )
    return leaf, leaf.json_steps[len(field.json_steps) :]


def _find_member(field: Field, members: Sequence[Field], steps: tuple[str, ...]) -> Field | None:
    """The member that proto or JSON names lead to from the field on."""
    if any("." in step for step in steps):
        return None
    depth = len(field.steps)
    fitting = (m for m in members if steps in (m.steps[depth:], m.json_steps[depth:]))
    return next(fitting, None)


def _make_match(comparison: Comparison, leaf: Field) -> Match:
    literal, comparator = comparison.literal, comparison.comparator
    if leaf.kind is Kind.BYTES:
        raise FilterError(
            f"'{shorten_input(comparison.name)}' holds bytes, which filters do not look into",
            comparison.position,
        )
    if comparator == ":":
        if literal.star and (not literal.quoted or leaf.kind is Kind.STRING):
            return Present(default_of(leaf))
        comparator = "="
    if comparator not in ("=", "!=") and leaf.kind in _UNORDERED:
        raise FilterError(
            f"'{shorten_input(comparison.name)}' has no order: compare it with = or !=",
            comparison.position,
        )
    if literal.text == "null" and not literal.quoted:
        raise FilterError(
            "null is not a value; "
            f"write NOT {shorten_input(comparison.name)}:* for what is not set",
            literal.position,
        )
    if literal.claim:
        return Compare(comparator, None)  # not known yet: this test is only for checks
    wild = literal.leading or literal.trailing
    if wild and leaf.kind is Kind.STRING and comparator in ("=", "!="):
        return make_pattern(literal, negated=comparator == "!=")
    return Compare(comparator, _read_value(comparison, leaf))


def _refuse_claim(literal: Literal) -> None:
    if literal.claim:
        raise FilterError("a claim is a value: it cannot name a field or key", literal.position)


@lru_cache(maxsize=4096)
def _value_reader(leaf: Field) -> Callable[[str], Any]:
    """From a literal to a value of the leaf's kind, made once per field."""
    # Rules for stored values, apart from the kind, do not apply to the literal, whose times are cut
    # to the digits that are stored.
    if leaf.in_key:
        leaf = replace(leaf, in_key=False)
    elif leaf.kind is Kind.DECIMAL:
        leaf = replace(leaf, precision=76, scale=38)
    return text_parser(leaf, TRUNCATING)


def _read_value(comparison: Comparison, leaf: Field) -> Any:
    try:
        value = _value_reader(leaf)(comparison.literal.text)
        return round_single(value) if leaf.kind is Kind.FLOAT else value
    except ValueRefused as exc:
        reason = exc.reason
    except OverflowError:
        reason = "is out of range"
    raise FilterError(
        f"the value for '{shorten_input(comparison.name)}' {shorten_input(reason)}",
        comparison.literal.position,
    )


def round_single(value: float) -> float:
    """The nearest number that a FLOAT can hold. Raises OverflowError if it is out of range."""
    return float(struct.unpack("f", struct.pack("f", value))[0])


def default_of(field: Field) -> Any:
    """The value of a field without presence that does not count as present; None: any counts."""
    if field.presence or field.kind in (Kind.DATE, Kind.TIMESTAMP):
        return None
    if field.in_key:
        return "" if field.kind is Kind.STRING else None
    return default_value(field)
