"""Columns of a shape in a View: what to SELECT for each, and the same of one record in Python."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from penstockd.catalog import Field, FieldClass, Kind
from penstockd.catalog.scalars import ValueRefused, text_parser, to_text
from penstockd.errors import ValueInvalid, Violation
from penstockd.policy.view import View
from penstockd.query import FieldUnknown
from penstockd.query.fields import MAX_BYTES
from penstockd.shapes.expressions import Values, check_expression, field_value
from penstockd.shapes.formats import (
    FormatRefused,
    TextStep,
    join_list,
    map_values,
    write_number,
    write_time,
)
from penstockd.shapes.model import ShapeColumn, ShapeDefinition
from penstockd.shapes.operators import Sql, ValueType, typed_literal
from penstockd.shapes.rows import ROW_NUMBER, ElementRows, RecordRows, make_rows
from penstockd.shapes.syntax import ExpressionParser, ExpressionRefused


@dataclass(frozen=True, slots=True)
class ShapedColumn:
    """One column of a shape as a View fills it.

    ``field`` describes the column for writers of files. ``reads`` are the fields of the dataset
    that it depends on, ``sql`` is its value in a row, and ``run`` makes the same value of the
    record's canonical values by path.
    """

    field: Field
    reads: tuple[Field, ...]
    sql: Sql
    run: Callable[[Values], Any]


class ShapedView:
    """The columns of a shape in a View."""

    def __init__(self, view: View, document: str) -> None:
        """``document`` is the JSON of a definition. Raises ValueInvalid, which names each column
        that the View cannot fill; a hidden field is an unknown one."""
        definition = ShapeDefinition.parse(document)
        self.view, self.document = view, document
        self.rows = make_rows(view, definition.rows)
        self.columns: list[ShapedColumn] = []
        parser = ExpressionParser(self.rows.names)
        found: list[Violation] = []
        for at, column in enumerate(definition.columns):
            try:
                self.columns.append(_shape_column(self.rows, column, parser))
            except _ColumnRefused as refused:
                found.append(Violation(f"columns[{at}].{refused.member}", refused.reason))
        if found:
            raise ValueInvalid(f"{found[0].field}: {found[0].description}", violations=found)

    @property
    def fields(self) -> list[Field]:
        """The columns as fields."""
        return [column.field for column in self.columns]

    @property
    def reads(self) -> list[Field]:
        """The fields of the dataset that the columns depend on, in the order of the schema."""
        read = {field for column in self.columns for field in column.reads}
        if self.rows.list is not None:  # the number of rows tells the number of elements
            read.add(self.rows.list)
        return [field for field in self.view.fields() if field in read]

    @property
    def rule_fields(self) -> str:
        """What it shows of a record, as the text of a selection (see ``Call.rule``)."""
        if not self.reads:  # "" would stand for all fields
            return self.view.dataset.key_fields[0].path
        text = ",".join(field.path for field in self.reads)
        # If the text is too long, the entry has "", which stands for all fields.
        return text if len(text) <= MAX_BYTES else ""


class _ColumnRefused(Exception):
    """The View cannot fill a column, because of one member of its definition."""

    def __init__(self, member: str, reason: str) -> None:
        super().__init__(reason)
        self.member, self.reason = member, reason


def _shape_column(rows: RecordRows, column: ShapeColumn, parser: ExpressionParser) -> ShapedColumn:
    """Raises _ColumnRefused."""
    if column.constant is not None:
        text = column.constant
        out = _make_field(column.name, Kind.STRING)
        return ShapedColumn(out, (), typed_literal(text, ValueType.STRING), lambda values: text)
    if column.expression:
        shaped = _compute_column(rows, column, parser)
    elif column.row_number:
        shaped = _number_rows(rows, column)
    else:
        shaped = _take_field(rows, column)
    for member, step in _list_steps(column):
        try:
            shaped = _apply_step(shaped, step(shaped.field))
        except FormatRefused as refused:
            raise _ColumnRefused(member, str(refused)) from None
    return shaped if column.default is None else _fill_default(shaped, column.default)


def _compute_column(
    rows: RecordRows, column: ShapeColumn, parser: ExpressionParser
) -> ShapedColumn:
    try:
        expression = check_expression(column.expression, rows.names, rows.column, parser)
    except ExpressionRefused as refused:
        raise _ColumnRefused("expression", f"the expression {refused}") from None
    out = _make_field(column.name, expression.kind)

    def run(values: Values) -> Any:
        read = {field.path: field_value(field, values[field.path]) for field in expression.fields}
        return expression.run(read)

    return ShapedColumn(out, tuple(map(rows.owner, expression.fields)), expression.sql, run)


def _number_rows(rows: RecordRows, column: ShapeColumn) -> ShapedColumn:
    if not isinstance(rows, ElementRows):
        raise _ColumnRefused("row_number", "goes with a shape whose rows are elements of a list")
    out = _make_field(column.name, Kind.INT32)
    return ShapedColumn(out, (rows.list,), rows.number, lambda values: values[ROW_NUMBER])


def _take_field(rows: RecordRows, column: ShapeColumn) -> ShapedColumn:
    field = rows.names.get(column.field)
    if field is None:
        paths = dict.fromkeys(f.path for f in rows.names.values())
        inner = [path for path in paths if path.startswith(f"{column.field}.")]
        if inner:
            reason = f"'{column.field}' holds {', '.join(inner)}: write one column for each"
            raise _ColumnRefused("field", reason)
        raise _ColumnRefused("field", FieldUnknown(column.field).message)
    path = field.path

    def run(values: Values) -> Any:
        return values[path]

    return ShapedColumn(
        _rename_field(rows.view.shown(field), column.name),
        (rows.owner(field),),
        rows.column(field),
        run,
    )


def _list_steps(column: ShapeColumn) -> list[tuple[str, Callable[[Field], TextStep]]]:
    """The steps of a column in their order, by the member that asks for each."""
    steps: list[tuple[str, Callable[[Field], TextStep]]] = []
    if (separator := column.join) is not None:
        steps.append(("join", lambda field: join_list(field, separator)))
    if column.values:
        steps.append(("values", lambda field: map_values(field, column.values, column.otherwise)))
    if (number := column.number) is not None:
        steps.append(("number", lambda field: write_number(field, number)))
    if column.time:
        steps.append(("time", lambda field: write_time(field, column.time)))
    return steps


def _apply_step(shaped: ShapedColumn, step: TextStep) -> ShapedColumn:
    """Every step makes text, and leaves null alone."""
    before, after = shaped.run, step.run

    def run(values: Values) -> Any:
        value = before(values)
        return None if value is None else after(value)

    field = _make_field(shaped.field.path, Kind.STRING)
    return ShapedColumn(field, shaped.reads, step.sql(shaped.sql), run)


def _fill_default(shaped: ShapedColumn, default: str) -> ShapedColumn:
    field, before = shaped.field, shaped.run
    if field.repeated or field.kind is Kind.BYTES:
        raise _ColumnRefused("default", f"is not for a {field.kind.name.lower()}")
    try:
        value = text_parser(field)(default)
    except ValueRefused as refused:
        raise _ColumnRefused("default", f"'{default[:80]}' {refused.reason}") from None
    text = typed_literal(to_text(field, value), ValueType.STRING)
    filled = sa.func.coalesce(shaped.sql, sa.cast(text, shaped.sql.type), type_=shaped.sql.type)

    def run(values: Values) -> Any:
        found = before(values)
        return value if found is None else found

    return ShapedColumn(field, shaped.reads, filled, run)


def _make_field(name: str, kind: Kind) -> Field:
    """A column that is none of the dataset's fields."""
    return Field(name, name, kind, FieldClass.PUBLIC, nullable=True, presence=True)


def _rename_field(field: Field, name: str) -> Field:
    """A field as a column of another name; its members move with it."""

    def moved(member: Field) -> Field:
        return replace(
            member,
            path=name + member.path[len(field.path) :],
            json_path=name + member.json_path[len(field.json_path) :],
            members=tuple(map(moved, member.members)),
        )

    return replace(
        moved(field),
        nullable=True,
        presence=True,
        key=False,
        in_key=False,
        output_only=False,
        reference=None,
        indexed=False,
        unique=False,
    )
