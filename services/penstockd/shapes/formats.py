"""Steps that turn a column into text: joined lists, mapped values, formats of numbers and times.

Each gives the same text in SQL and in Python.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import ROUND_HALF_UP, Context, Decimal
from math import isfinite
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB, aggregate_order_by

from penstockd.catalog import Field, Kind
from penstockd.catalog.scalars import to_text
from penstockd.shapes.model import NumberFormat
from penstockd.shapes.operators import SQL_TYPES, Sql, ValueType, typed_literal, typed_sql

_TEXT = SQL_TYPES[ValueType.STRING]
_WHOLE = frozenset({Kind.INT32, Kind.INT64, Kind.UINT32, Kind.UINT64})
_MAPPED = frozenset({Kind.STRING, Kind.ENUM, Kind.BOOL}) | _WHOLE
_NUMBERS = frozenset({Kind.DECIMAL, Kind.FLOAT, Kind.DOUBLE}) | _WHOLE
_JOINED = frozenset({Kind.STRING, Kind.ENUM, Kind.BOOL, Kind.DATE}) | _WHOLE
#: Longer lists are joined by a subquery.
_SHORT_LIST = 6
_DIGITS = {Kind.INT32: 10, Kind.UINT32: 10, Kind.INT64: 19, Kind.UINT64: 20}
#: Digits that any number of a model has, and more.
_EXACT = Context(prec=5000)

#: What each directive of a time format is in PostgreSQL and in Python.
DIRECTIVES: Mapping[str, tuple[str, Callable[[Any], str]]] = {
    "%Y": ("YYYY", lambda t: f"{t.year:04}"),
    "%m": ("MM", lambda t: f"{t.month:02}"),
    "%d": ("DD", lambda t: f"{t.day:02}"),
    "%H": ("HH24", lambda t: f"{t.hour:02}"),
    "%M": ("MI", lambda t: f"{t.minute:02}"),
    "%S": ("SS", lambda t: f"{t.second:02}"),
    "%f": ("US", lambda t: f"{t.microsecond:06}"),
}
_DATE_DIRECTIVES = frozenset({"%Y", "%m", "%d"})
#: Characters that ``to_char`` copies; in quotes they cost it about as much as a part of the time.
_COPIED = frozenset(" .,-/:")
#: What a pattern may end with so that a part of the time can follow as it is.
_ENDS = frozenset(["", '"', *_COPIED])


def _give_text(text: str, time: Any) -> str:
    return text


class FormatRefused(ValueError):
    """A step does not fit its column; the text says why."""


@dataclass(frozen=True, slots=True)
class TextStep:
    """A step: value -> text, in both ways. ``run`` takes no None; NULL stays NULL in ``sql``."""

    run: Callable[[Any], str | None]
    sql: Callable[[Sql], Sql]


def join_list(field: Field, separator: str) -> TextStep:
    """The elements of a list as one text. Raises FormatRefused."""
    element = field.element
    if field.kind is not Kind.LIST or element is None or element.kind not in _JOINED:
        raise FormatRefused("is for lists of texts, enum values, booleans, dates and whole numbers")

    def run(value: Any) -> str:
        return separator.join(_plain_text(item) for item in value)

    def statement(column: Sql) -> Sql:
        column = sa.cast(column, JSONB())
        joint = typed_literal(separator, ValueType.STRING)
        # Most lists are short, and for these taking single elements is faster than a subquery
        # with an aggregate.
        short: list[tuple[Sql, Sql]] = [
            (sa.literal_column(str(count)), _join_first_sql(column, count, joint))
            for count in range(_SHORT_LIST + 1)
        ]
        size = sa.func.jsonb_array_length(column)
        joined = sa.case(*short, value=size, else_=_join_all_sql(column, joint))
        return sa.type_coerce(sa.case((column.is_not(sa.null()), joined)), _TEXT)

    return TextStep(run, statement)


def _join_first_sql(column: Sql, count: int, joint: Sql) -> Sql:
    """The first ``count`` elements of a list as one text."""
    text: Sql = typed_sql("''", ValueType.STRING)
    for i in range(count):
        item = column.op("->>")(sa.literal_column(str(i)))
        text = text.op("||")(joint).op("||")(item) if i else item
    return text


def _join_all_sql(column: Sql, joint: Sql) -> Sql:
    """All elements of a list that is not empty, as one text."""
    items = (
        sa.func.jsonb_array_elements_text(column)
        .table_valued("item", with_ordinality="place")
        .render_derived()
    )
    texts = sa.func.string_agg(items.c.item, aggregate_order_by(joint, items.c.place))
    return sa.select(texts).scalar_subquery()


def _plain_text(item: Any) -> str:
    """As ``jsonb_array_elements_text`` gives an element of a repeated field."""
    if isinstance(item, bool):
        return "true" if item else "false"
    return str(item)


def map_values(field: Field, values: Mapping[str, str], otherwise: str | None) -> TextStep:
    """Other texts for some values; the others stay, or become ``otherwise``. Raises
    FormatRefused."""
    if field.kind not in _MAPPED:
        raise FormatRefused("is for texts, enum values, booleans and whole numbers")

    def run(value: Any) -> str:
        text = to_text(field, value)
        return values.get(text, text if otherwise is None else otherwise)

    def statement(column: Sql) -> Sql:
        text: Sql = sa.cast(column, _TEXT)
        known = [
            (typed_literal(k, ValueType.STRING), typed_literal(v, ValueType.STRING))
            for k, v in sorted(values.items())
        ]
        rest = text if otherwise is None else typed_literal(otherwise, ValueType.STRING)
        mapped = sa.case(*known, value=text, else_=rest)
        return sa.case((column.is_not(sa.null()), mapped))

    return TextStep(run, statement)


def write_number(field: Field, format: NumberFormat) -> TextStep:
    """A number as text, rounded half away from zero. Raises FormatRefused."""
    if field.kind not in _NUMBERS:
        raise FormatRefused("is for numbers")
    unit = Decimal(1).scaleb(-format.decimals)
    swaps = {".": format.decimal_separator, ",": format.group_separator}

    def run(value: Any) -> str | None:
        if isinstance(value, float):
            if not isfinite(value):
                return None
            value = Decimal(to_text(field, value))
        rounded = Decimal(value).quantize(unit, ROUND_HALF_UP, _EXACT)
        text = format_number(rounded or abs(rounded))
        return "".join(swaps.get(c, c) for c in text)

    def format_number(value: Decimal) -> str:
        return (
            f"{value:,.{format.decimals}f}"
            if format.group_separator
            else f"{value:.{format.decimals}f}"
        )

    def statement(column: Sql) -> Sql:
        digits: Sql = sa.literal_column(str(int(format.decimals)))
        rounded = sa.func.round(_exact_sql(field, column), digits)
        if format.group_separator:
            return _group_sql(field, rounded, format)
        return _replace_sql(sa.cast(rounded, _TEXT), ".", format.decimal_separator)

    return TextStep(run, statement)


def _exact_sql(field: Field, column: Sql) -> Sql:
    """A number as numeric, with the digits that readers of the field get; NULL if not finite."""
    if field.kind not in (Kind.FLOAT, Kind.DOUBLE):
        return sa.cast(column, sa.Numeric())
    odd = ("NaN", "Infinity", "-Infinity")
    text: Sql = sa.cast(column, _TEXT)
    for value in odd:
        text = sa.func.nullif(text, typed_sql(f"'{value}'", ValueType.STRING), type_=_TEXT)
    return sa.cast(text, sa.Numeric())


def _group_sql(field: Field, rounded: Sql, format: NumberFormat) -> Sql:
    """A rounded number with the separators of a format."""
    point, group = format.decimal_separator, format.group_separator
    if field.kind in (Kind.FLOAT, Kind.DOUBLE):  # a pattern could have too few digits
        text: Sql = sa.cast(rounded, _TEXT)
        whole = _mark_groups_sql(_split_sql(text, 1))
    else:
        zeros = "." + "0" * format.decimals if format.decimals else ""
        groups = -(-_count_digits(field) // 3)
        pattern = f"'FM{'999,' * (groups - 1)}990{zeros}'"
        text = sa.func.to_char(rounded, typed_sql(pattern, ValueType.STRING))
        if len(point) == len(group) == 1:
            swapped = typed_literal(group + point, ValueType.STRING)
            return sa.func.translate(
                text, typed_sql("',.'", ValueType.STRING), swapped, type_=_TEXT
            )
        whole = _split_sql(text, 1)
    whole = _replace_sql(whole, ",", group)
    if not format.decimals:
        return whole
    joint = typed_literal(point, ValueType.STRING)
    return sa.type_coerce(whole.op("||")(joint).op("||")(_split_sql(text, 2)), _TEXT)


def _count_digits(field: Field) -> int:
    """The most digits before the point of a rounded number."""
    if field.kind is Kind.DECIMAL:
        return (field.precision or 38) - field.scale + 1  # rounding may add one
    return _DIGITS[field.kind]


def _split_sql(text: Sql, part: int) -> Sql:
    """The digits before (1) or after (2) the point of a number."""
    point = typed_sql("'.'", ValueType.STRING)
    return sa.func.split_part(text, point, sa.literal_column(str(part)), type_=_TEXT)


def _replace_sql(text: Sql, mark: str, by: str) -> Sql:
    if mark == by:
        return text
    marked = typed_sql(f"'{mark}'", ValueType.STRING)
    return sa.func.replace(text, marked, typed_literal(by, ValueType.STRING), type_=_TEXT)


def _mark_groups_sql(whole: Sql) -> Sql:
    """Digits with a comma between groups of three."""
    return sa.func.regexp_replace(
        whole,
        typed_sql(r"'(\d)(?=(\d{3})+$)'", ValueType.STRING),
        typed_sql(r"'\1,'", ValueType.STRING),
        typed_sql("'g'", ValueType.STRING),
    )


def _quote_text(text: str) -> str:
    """A text within a pattern of ``to_char``."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def split_time_format(format: str) -> list[str]:
    """The directives of a time format, and the texts between them."""
    return re.findall("%.?|[^%]+", format, re.DOTALL)


def write_time(field: Field, format: str) -> TextStep:
    """A date, or a time in UTC, by a format of ``strftime``: %Y %m %d %H %M %S %f and %%. Raises
    FormatRefused."""
    if field.kind not in (Kind.DATE, Kind.TIMESTAMP):
        raise FormatRefused("is for dates and times")
    parts = split_time_format(format)
    pattern, writers = "", []
    for part in parts:
        if part in DIRECTIVES:
            if field.kind is Kind.DATE and part not in _DATE_DIRECTIVES:
                raise FormatRefused(f"a date has no {part}")
            sql, write = DIRECTIVES[part]
            # Without a separator, DD and DD would become the pattern DDDD.
            pattern += sql if pattern[-1:] in _ENDS else f'""{sql}'
            writers.append(write)
        elif part.startswith("%") and part != "%%":
            raise FormatRefused(f"has {part!r}: write %Y, %m, %d, %H, %M, %S, %f or %%")
        else:
            text = "%" if part == "%%" else part
            pattern += text if _COPIED.issuperset(text) else _quote_text(text)
            writers.append(functools.partial(_give_text, text))

    def run(value: date | datetime) -> str:
        shown = value.astimezone(UTC) if isinstance(value, datetime) else value
        return "".join(write(shown) for write in writers)

    def statement(column: Sql) -> Sql:
        if field.kind is Kind.TIMESTAMP:
            column = sa.func.timezone(typed_sql("'UTC'", ValueType.STRING), column)
        return sa.func.to_char(column, typed_literal(pattern, ValueType.STRING), type_=_TEXT)

    return TextStep(run, statement)
