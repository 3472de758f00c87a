"""Expressions of computed columns: CEL over the fields that a View shows.

An expression is checked once, against the types of its fields. It then runs in two ways with the
same result: as SQL, in exports and pages, and in Python, for single records. Both are bounded:
there are no loops, and the tree has a bounded number of nodes.

An operator has no result, which is null, if an operand is null or if the result is out of range.
``&&``, ``||`` and ``?:`` ignore operands that do not decide. ``== null`` and ``!= null`` ask
whether a field is set.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite
from typing import Any

import sqlalchemy as sa

from penstockd.catalog import Field, Kind
from penstockd.catalog.scalars import to_text
from penstockd.floats import settle_float
from penstockd.shapes.operators import (
    BOOL,
    DOUBLE,
    OPERATIONS,
    SQL_TYPES,
    Sql,
    ValueType,
    compute_once,
    typed_literal,
    typed_sql,
)
from penstockd.shapes.syntax import (
    Apply,
    Constant,
    ExpressionParser,
    ExpressionRefused,
    ListOf,
    Name,
    Node,
)

#: The value of a field in a record, or None.
Values = Mapping[str, Any]

_TYPES = {
    Kind.STRING: ValueType.STRING,
    Kind.ENUM: ValueType.STRING,
    Kind.DATE: ValueType.STRING,
    Kind.BOOL: ValueType.BOOL,
    Kind.INT32: ValueType.INT,
    Kind.INT64: ValueType.INT,
    Kind.UINT32: ValueType.INT,
    Kind.FLOAT: ValueType.DOUBLE,
    Kind.DOUBLE: ValueType.DOUBLE,
    Kind.DECIMAL: ValueType.DOUBLE,
    Kind.TIMESTAMP: ValueType.TIMESTAMP,
}
_RESULTS = {
    ValueType.BOOL: Kind.BOOL,
    ValueType.INT: Kind.INT64,
    ValueType.DOUBLE: Kind.DOUBLE,
    ValueType.STRING: Kind.STRING,
    ValueType.TIMESTAMP: Kind.TIMESTAMP,
}
_LITERALS = {
    bool: ValueType.BOOL,
    int: ValueType.INT,
    float: ValueType.DOUBLE,
    str: ValueType.STRING,
}


@dataclass(frozen=True, slots=True)
class Checked:
    """A part of an expression: its type, and how to get its value from a record and in SQL.

    Its value can be null because a field is not set (``unset``), or because an operator has no
    result (``failing``).
    """

    type: ValueType
    run: Callable[[Values], Any]
    sql: Sql
    unset: bool = False
    failing: bool = False


@dataclass(frozen=True, slots=True)
class Expression:
    """A checked expression: the kind of its results, and the fields that it reads."""

    kind: Kind
    fields: tuple[Field, ...]
    run: Callable[[Values], Any]
    sql: Sql


def check_expression(
    text: str,
    fields: Mapping[str, Field],
    column: Callable[[Field], Sql],
    parser: ExpressionParser | None = None,
) -> Expression:
    """Check an expression over ``fields``, by path; ``column`` is what the caller sees of one.

    ``parser`` is for the same fields, and bounds several expressions together. Raises
    ExpressionRefused.
    """
    usable = {path: field for path, field in fields.items() if field.kind in _TYPES}
    tree = (parser or ExpressionParser(fields)).parse(text)
    checker = _Checker(usable, fields, column)
    checked = checker.check(tree)
    if checked.type is ValueType.NULL:
        raise ExpressionRefused("is always null")
    kind, reads, run, sql = _RESULTS[checked.type], tuple(checker.read), checked.run, checked.sql
    if checked.type is DOUBLE:  # -0.0 + 0.0 is 0.0, see ``floats``
        return Expression(kind, reads, _settle_result(run), sql + typed_sql("0", DOUBLE))
    return Expression(kind, reads, run, sql)


def _settle_result(run: Callable[[Values], Any]) -> Callable[[Values], Any]:
    def settled(values: Values) -> Any:
        value = run(values)
        return None if value is None else settle_float(value)

    return settled


def field_value(field: Field, value: Any) -> Any:
    """A field's canonical value as expressions see it."""
    if value is None:
        return None
    match field.kind:
        case Kind.DATE:
            return to_text(field, value)
        case Kind.FLOAT | Kind.DOUBLE | Kind.DECIMAL:
            number = float(value)
            return number if isfinite(number) else None
    return value


class _Checker:
    """Checks one tree from the leaves up."""

    def __init__(
        self,
        usable: Mapping[str, Field],
        visible: Mapping[str, Field],
        column: Callable[[Field], Sql],
    ) -> None:
        self._usable, self._visible, self._column = usable, visible, column
        self.read: dict[Field, None] = {}

    def check(self, node: Node) -> Checked:
        """The part with its type. Raises ExpressionRefused."""
        match node:
            case Constant():
                return _check_constant(node)
            case Name():
                return self._check_name(node)
            case ListOf():
                raise ExpressionRefused("has a list that is not on the right side of 'in'")
        match node.function:
            case "_&&_" | "_||_":
                return self._check_logic(node)
            case "!_":
                return _check_not(self.check(node.arguments[0]))
            case "_?_:_":
                return self._check_condition(node)
            case "_==_" | "_!=_":
                left, right = map(self.check, node.arguments)
                return _check_equality(left, right, negated=node.function == "_!=_")
            case "@in":
                return self._check_membership(node)
        return _check_operation(node.function, [self.check(a) for a in node.arguments])

    def _check_name(self, node: Name) -> Checked:
        field = self._usable.get(node.path)
        if field is None:
            shown = self._visible.get(node.path)
            if shown is None:  # CEL has names of its own, of types
                raise ExpressionRefused(f"uses '{node.path}' as a value")
            kind = shown.kind.name.lower()
            raise ExpressionRefused(f"reads '{node.path}', whose type ({kind}) it cannot use")
        self.read[field] = None
        path = field.path

        def run(values: Values) -> Any:
            return values[path]

        return Checked(_TYPES[field.kind], run, _field_sql(field, self._column(field)), unset=True)

    def _check_logic(self, node: Apply) -> Checked:
        left, right = map(self.check, node.arguments)
        for part in (left, right):
            _require_bool(part, "'&&' and '||'")
        decisive = node.function == "_||_"
        join = sa.or_ if decisive else sa.and_

        def run(values: Values) -> bool | None:
            found = left.run(values), right.run(values)
            if decisive in found:
                return decisive
            return None if None in found else not decisive

        return Checked(BOOL, run, join(left.sql, right.sql), failing=True)

    def _check_condition(self, node: Apply) -> Checked:
        condition, yes, no = map(self.check, node.arguments)
        _require_bool(condition, "'?:'")
        types = {yes.type, no.type} - {ValueType.NULL}
        if len(types) > 1:
            raise ExpressionRefused(
                f"has '?:' with results of two types, {yes.type.value} and {no.type.value}"
            )
        type = types.pop() if types else ValueType.NULL
        true, false = typed_sql("true", BOOL), typed_sql("false", BOOL)
        # CASE x WHEN computes the condition once.
        chosen = sa.case({true: yes.sql, false: no.sql}, value=condition.sql)

        def run(values: Values) -> Any:
            found = condition.run(values)
            if found is None:
                return None
            return yes.run(values) if found else no.run(values)

        unset = yes.unset or no.unset or ValueType.NULL in (yes.type, no.type)
        return Checked(type, run, chosen, unset=unset, failing=True)

    def _check_membership(self, node: Apply) -> Checked:
        element, items = node.arguments
        if not isinstance(items, ListOf) or not items.items:
            raise ExpressionRefused("has 'in' without a list such as ['a', 'b'] on its right side")
        if any(not isinstance(i, Constant) or i.value is None for i in items.items):
            raise ExpressionRefused("has a list with something else than texts and numbers")
        left = self.check(element)
        # The parts check the types; the statement mentions the element once.
        constants = [self.check(item) for item in items.items]
        parts = [_check_equality(left, constant, negated=False) for constant in constants]

        def run(values: Values) -> bool | None:
            found = left.run(values)
            if found is None and left.failing:
                return None
            return any(part.run(values) for part in parts)

        def build(value: Sql) -> Sql:
            known = sa.or_(*[value.is_not_distinct_from(c.sql) for c in constants])
            return sa.case((value.is_not(sa.null()), known)) if left.failing else known

        return Checked(BOOL, run, compute_once(build, left.sql), failing=left.failing)


def _check_constant(node: Constant) -> Checked:
    value = node.value
    if value is None:
        return Checked(ValueType.NULL, lambda values: None, sa.null(), unset=True)
    type = _LITERALS[value.__class__]
    return Checked(type, lambda values: value, typed_literal(value, type))


def _check_not(part: Checked) -> Checked:
    _require_bool(part, "'!'")

    def run(values: Values) -> bool | None:
        found = part.run(values)
        return None if found is None else not found

    return Checked(BOOL, run, sa.not_(part.sql), failing=True)


def _check_equality(left: Checked, right: Checked, *, negated: bool) -> Checked:
    """``==`` and ``!=``: a field that is not set equals null alone; without a result on one side
    there is none."""
    for part in (left, right):
        if part.unset and part.failing:
            raise ExpressionRefused("compares a '?:' that may be null: compare its parts")
    if left.type is not right.type and ValueType.NULL not in (left.type, right.type):
        raise ExpressionRefused(f"compares {left.type.value} and {right.type.value}")
    failing = left.failing or right.failing

    def build(a: Sql, b: Sql) -> Sql:
        equal = a.is_not_distinct_from(b)
        same = sa.not_(equal) if negated else equal
        known = [v.is_not(sa.null()) for v, part in ((a, left), (b, right)) if part.failing]
        return sa.case((sa.and_(*known), same)) if known else same

    statement = compute_once(build, left.sql, right.sql) if failing else build(left.sql, right.sql)

    def run(values: Values) -> bool | None:
        a, b = left.run(values), right.run(values)
        if (a is None and left.failing) or (b is None and right.failing):
            return None
        return bool(a != b) if negated else bool(a == b)

    return Checked(BOOL, run, statement, failing=failing)


def _check_operation(function: str, parts: list[Checked]) -> Checked:
    forms = OPERATIONS.get(function)
    if forms is None:
        raise ExpressionRefused(f"uses {function}(), which shapes do not have")
    takes = tuple(part.type for part in parts)
    form = next((f for f in forms if f.takes == takes), None)
    if form is None:
        given = ", ".join(type.value for type in takes)
        known = " or ".join("(" + ", ".join(t.value for t in f.takes) + ")" for f in forms)
        raise ExpressionRefused(
            f"applies {_name_function(function)} to ({given}); it takes {known}"
        )

    def run(values: Values) -> Any:
        found = [part.run(values) for part in parts]
        return None if None in found else form.run(*found)

    return Checked(form.gives, run, form.sql(*[p.sql for p in parts]), failing=True)


def _name_function(function: str) -> str:
    return f"'{function.strip('_')}'" if "_" in function else f"{function}()"


def _require_bool(part: Checked, where: str) -> None:
    if part.type is not BOOL:
        raise ExpressionRefused(f"has {part.type.value} where {where} takes bool")


def _field_sql(field: Field, column: Sql) -> Sql:
    """A column as expressions see it."""
    match field.kind:
        case Kind.INT32 | Kind.UINT32:
            return sa.cast(column, sa.BigInteger())
        case Kind.DATE:
            pattern = typed_sql("'YYYY-MM-DD'", ValueType.STRING)
            return sa.func.to_char(column, pattern, type_=SQL_TYPES[ValueType.STRING])
        case Kind.DECIMAL:
            return sa.cast(column, sa.Double())
        case Kind.FLOAT | Kind.DOUBLE:
            odd = [typed_sql(f"'{n}'", ValueType.DOUBLE) for n in ("NaN", "Infinity", "-Infinity")]
            wide: Sql = sa.cast(column, sa.Double())
            for value in odd:
                wide = sa.func.nullif(wide, value, type_=sa.Double())
            return wide
    return sa.type_coerce(column, SQL_TYPES[_TYPES[field.kind]])
