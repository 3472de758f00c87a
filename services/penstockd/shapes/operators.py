"""What operators and functions of expressions do, in Python and in SQL alike.

A Python form takes values that are not null and returns None if it has no result, as in an overflow
or a division by zero. An SQL form is NULL in exactly the same cases and for a NULL argument, and
never raises an error in the database.
"""

from __future__ import annotations

import enum
import operator
import string
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import ColumnElement
from sqlalchemy.ext.compiler import compiles

Sql = ColumnElement[Any]


class ValueType(enum.Enum):
    """The types of expressions."""

    NULL = "null"
    BOOL = "bool"
    INT = "int"
    DOUBLE = "double"
    STRING = "string"
    TIMESTAMP = "timestamp"


BOOL, INT, DOUBLE = ValueType.BOOL, ValueType.INT, ValueType.DOUBLE
STRING, TIMESTAMP = ValueType.STRING, ValueType.TIMESTAMP

#: The SQL type of each. Texts compare by code points, as in CEL.
SQL_TYPES: Mapping[ValueType, sa.types.TypeEngine[Any]] = {
    BOOL: sa.Boolean(),
    INT: sa.BigInteger(),
    DOUBLE: sa.Double(),
    STRING: sa.Text(collation="C"),
    TIMESTAMP: sa.DateTime(timezone=True),
}
_LOWEST, _HIGHEST = -(2**63), 2**63 - 1
#: Arithmetic of doubles has a result if both operands are 0 or of a size between these, so that no
#: result overflows or underflows.
_SMALL, _LARGE = 1e-150, 1e150
#: The most characters of a text that is put together; a longer one is no result.
MAX_TEXT = 100_000
_UPPER = dict(zip(map(ord, string.ascii_lowercase), string.ascii_uppercase, strict=True))
_LOWER = dict(zip(map(ord, string.ascii_uppercase), string.ascii_lowercase, strict=True))


@dataclass(frozen=True, slots=True)
class OperationForm:
    """One form of an operator or function, for arguments of these types."""

    takes: tuple[ValueType, ...]
    gives: ValueType
    run: Callable[..., Any]
    sql: Callable[..., Sql]


def typed_sql(text: str, type: ValueType) -> Sql:
    """SQL text of ours as an expression."""
    return sa.literal_column(text, SQL_TYPES[type])


def typed_literal(value: Any, type: ValueType) -> Sql:
    """A value as a parameter: it is never part of the text of a statement."""
    return sa.literal(value, SQL_TYPES[type])


class _OuterValue(ColumnElement[Any]):
    """An expression over the row of the whole statement, within a subquery: SQLAlchemy would add
    its table to the subquery otherwise."""

    inherit_cache = False

    def __init__(self, inner: Sql) -> None:
        self.inner, self.type = inner, inner.type


@compiles(_OuterValue)
def _compile_outer_value(element: _OuterValue, compiler: Any, **options: Any) -> str:
    return str(compiler.process(element.inner, **options))


def compute_once(build: Callable[..., Sql], *arguments: Sql) -> Sql:
    """``build`` of arguments that it mentions several times; each is computed once."""
    names = [f"v{i}" for i in range(len(arguments))]
    outer = map(_OuterValue, arguments)
    inner = sa.select(*[a.label(n) for a, n in zip(outer, names, strict=True)])
    # OFFSET 0 keeps the planner from writing an argument out wherever it is mentioned.
    rows = inner.offset(sa.literal_column("0")).subquery()
    return sa.select(build(*[rows.c[n] for n in names])).scalar_subquery()


# --- whole numbers -------------------------------------------------------------------------


def _keep_bounded(value: int) -> int | None:
    return value if _LOWEST <= value <= _HIGHEST else None


def _whole_operation(run: Callable[[int, int], int], sign: str) -> OperationForm:
    """Addition, subtraction or multiplication without a result beyond 64 bits."""
    lowest, highest = (sa.literal_column(str(n), sa.Numeric()) for n in (_LOWEST, _HIGHEST))

    def keep(result: Sql) -> Sql:
        return sa.case((result.between(lowest, highest), sa.cast(result, sa.BigInteger())))

    def statement(a: Sql, b: Sql) -> Sql:
        wide = sa.cast(a, sa.Numeric()).op(sign)(sa.cast(b, sa.Numeric()))
        return compute_once(keep, sa.type_coerce(wide, sa.Numeric()))

    return OperationForm((INT, INT), INT, lambda a, b: _keep_bounded(run(a, b)), statement)


def _divide_whole(a: int, b: int) -> int | None:
    """Rounded towards 0, as in CEL and SQL."""
    if b == 0:
        return None
    size = abs(a) // abs(b)
    return _keep_bounded(size if (a < 0) == (b < 0) else -size)


def _take_remainder(a: int, b: int) -> int | None:
    """With the sign of the dividend, as in CEL and SQL."""
    if b == 0 or (a, b) == (_LOWEST, -1):
        return None
    rest = abs(a) % abs(b)
    return -rest if a < 0 else rest


def _make_division(run: Callable[[int, int], int | None], sign: str) -> OperationForm:
    zero, one, lowest = (typed_sql(text, INT) for text in ("0", "-1", f"'{_LOWEST}'::bigint"))

    def divide(a: Sql, b: Sql) -> Sql:
        overflow = sa.and_(a == lowest, b == one)
        return sa.case((overflow, sa.null()), else_=a.op(sign)(sa.func.nullif(b, zero)))

    return OperationForm((INT, INT), INT, run, lambda a, b: compute_once(divide, a, b))


def _negate_sql(value: Sql) -> Sql:
    lowest = typed_sql(f"'{_LOWEST}'::bigint", INT)
    return -sa.func.nullif(value, lowest, type_=SQL_TYPES[INT])


# --- doubles -------------------------------------------------------------------------------


def _is_workable(value: float) -> bool:
    return value == 0 or _SMALL <= abs(value) <= _LARGE


def _double_operation(run: Callable[[float, float], float], sign: str) -> OperationForm:
    divides = sign == "/"

    def compute(a: float, b: float) -> float | None:
        if not (_is_workable(a) and _is_workable(b)) or (divides and b == 0):
            return None
        return run(a, b)

    def workable(value: Sql) -> Sql:
        size = sa.func.abs(value)
        return sa.or_(value == typed_sql("0", DOUBLE), size.between(low, high))

    low, high = (typed_sql(f"{n!r}::double precision", DOUBLE) for n in (_SMALL, _LARGE))

    def build(a: Sql, b: Sql) -> Sql:
        conditions = [workable(a), workable(b)]
        if divides:
            conditions.append(b != typed_sql("0", DOUBLE))
        return sa.case((sa.and_(*conditions), a.op(sign)(b)))

    return OperationForm((DOUBLE, DOUBLE), DOUBLE, compute, lambda a, b: compute_once(build, a, b))


def _truncate_double(value: float) -> int | None:
    return int(value) if -(2.0**63) < value < 2.0**63 else None


def _truncate_sql(value: Sql) -> Sql:
    edge = typed_sql("9223372036854775808::double precision", DOUBLE)

    def build(v: Sql) -> Sql:
        return sa.case((sa.and_(v > -edge, v < edge), sa.cast(sa.func.trunc(v), sa.BigInteger())))

    return compute_once(build, value)


# --- texts ---------------------------------------------------------------------------------


def _cut_text(text: str, start: int, end: int) -> str | None:
    return text[start:end] if 0 <= start <= end <= len(text) else None


def _cut_text_sql(text: Sql, start: Sql, end: Sql | None = None) -> Sql:
    zero = typed_sql("0", INT)

    def build(t: Sql, a: Sql, *given: Sql) -> Sql:
        length = sa.cast(sa.func.char_length(t), sa.BigInteger())
        (b,) = given or (length,)
        within = sa.and_(a >= zero, a <= b, b <= length)
        first, count = (sa.cast(n, sa.Integer()) for n in (a + typed_sql("1", INT), b - a))
        return sa.case((within, sa.func.substr(t, first, count)))

    return compute_once(build, text, start, *([] if end is None else [end]))


def _join_texts(a: str, b: str) -> str | None:
    return a + b if len(a) + len(b) <= MAX_TEXT else None


def _join_texts_sql(a: Sql, b: Sql) -> Sql:
    def build(x: Sql, y: Sql) -> Sql:
        size = sa.func.char_length(x) + sa.func.char_length(y)
        return sa.case((size <= typed_sql(str(MAX_TEXT), INT), x.op("||")(y)))

    return compute_once(build, a, b)


def _translate_sql(text: Sql, source: str, target: str) -> Sql:
    return sa.func.translate(
        text, typed_sql(f"'{source}'", STRING), typed_sql(f"'{target}'", STRING)
    )


def _starts_sql(text: Sql, start: Sql) -> Sql:
    return sa.func.starts_with(text, start, type_=sa.Boolean())


def _ends_sql(text: Sql, end: Sql) -> Sql:
    def build(t: Sql, e: Sql) -> Sql:
        return sa.func.right(t, sa.func.char_length(e)) == e

    return compute_once(build, text, end)


def _contains_sql(text: Sql, part: Sql) -> Sql:
    return sa.func.strpos(text, part) > typed_sql("0", INT)


# --- times, in UTC ---------------------------------------------------------------------------


def _time_operation(run: Callable[[datetime], int], sql: str) -> OperationForm:
    """``sql`` takes the time at {}."""
    field, _, shift = sql.partition(" ")

    def build(time: Sql) -> Sql:
        local = sa.func.timezone(typed_sql("'UTC'", STRING), time)
        part = sa.cast(sa.func.date_part(typed_sql(f"'{field}'", STRING), local), sa.BigInteger())
        return part + typed_sql(shift, INT) if shift else part

    return OperationForm((TIMESTAMP,), INT, lambda t: run(t.astimezone(UTC)), build)


# --- comparisons -----------------------------------------------------------------------------


def _list_comparisons(run: Callable[[Any, Any], Any]) -> Iterator[OperationForm]:
    for type in (INT, DOUBLE, STRING, TIMESTAMP):
        yield OperationForm((type, type), BOOL, run, run)


#: The forms of each operator and function, by the name that CEL gives it. Equality, ``in``, logic
#: and conditions handle null differently: see ``expressions``.
OPERATIONS: dict[str, tuple[OperationForm, ...]] = {
    "_+_": (
        _whole_operation(operator.add, "+"),
        _double_operation(operator.add, "+"),
        OperationForm((STRING, STRING), STRING, _join_texts, _join_texts_sql),
    ),
    "_-_": (_whole_operation(operator.sub, "-"), _double_operation(operator.sub, "-")),
    "_*_": (_whole_operation(operator.mul, "*"), _double_operation(operator.mul, "*")),
    "_/_": (_make_division(_divide_whole, "/"), _double_operation(operator.truediv, "/")),
    "_%_": (_make_division(_take_remainder, "%"),),
    "-_": (
        OperationForm((INT,), INT, lambda a: _keep_bounded(-a), _negate_sql),
        OperationForm((DOUBLE,), DOUBLE, operator.neg, operator.neg),
    ),
    "_<_": tuple(_list_comparisons(operator.lt)),
    "_<=_": tuple(_list_comparisons(operator.le)),
    "_>_": tuple(_list_comparisons(operator.gt)),
    "_>=_": tuple(_list_comparisons(operator.ge)),
    "size": (
        OperationForm(
            (STRING,), INT, len, lambda a: sa.cast(sa.func.char_length(a), sa.BigInteger())
        ),
    ),
    "startsWith": (OperationForm((STRING, STRING), BOOL, str.startswith, _starts_sql),),
    "endsWith": (OperationForm((STRING, STRING), BOOL, str.endswith, _ends_sql),),
    "contains": (OperationForm((STRING, STRING), BOOL, operator.contains, _contains_sql),),
    "lowerAscii": (
        OperationForm(
            (STRING,),
            STRING,
            lambda a: a.translate(_LOWER),
            lambda a: _translate_sql(a, string.ascii_uppercase, string.ascii_lowercase),
        ),
    ),
    "upperAscii": (
        OperationForm(
            (STRING,),
            STRING,
            lambda a: a.translate(_UPPER),
            lambda a: _translate_sql(a, string.ascii_lowercase, string.ascii_uppercase),
        ),
    ),
    "substring": (
        OperationForm((STRING, INT), STRING, lambda t, a: _cut_text(t, a, len(t)), _cut_text_sql),
        OperationForm((STRING, INT, INT), STRING, _cut_text, _cut_text_sql),
    ),
    "string": (
        OperationForm((STRING,), STRING, str, lambda a: a),
        OperationForm((INT,), STRING, str, lambda a: sa.cast(a, SQL_TYPES[STRING])),
        OperationForm(
            (BOOL,),
            STRING,
            lambda a: "true" if a else "false",
            lambda a: sa.cast(a, SQL_TYPES[STRING]),
        ),
    ),
    "int": (
        OperationForm((INT,), INT, int, lambda a: a),
        OperationForm((DOUBLE,), INT, _truncate_double, _truncate_sql),
    ),
    "double": (
        OperationForm((DOUBLE,), DOUBLE, float, lambda a: a),
        OperationForm((INT,), DOUBLE, float, lambda a: sa.cast(a, sa.Double())),
    ),
    "getFullYear": (_time_operation(lambda t: t.year, "year"),),
    "getMonth": (_time_operation(lambda t: t.month - 1, "month -1"),),
    "getDate": (_time_operation(lambda t: t.day, "day"),),
    "getDayOfMonth": (_time_operation(lambda t: t.day - 1, "day -1"),),
    "getDayOfWeek": (_time_operation(lambda t: t.isoweekday() % 7, "dow"),),
    "getHours": (_time_operation(lambda t: t.hour, "hour"),),
    "getMinutes": (_time_operation(lambda t: t.minute, "minute"),),
}
