"""Rows of a shape: one for each record, or one for each element of one of its lists.

Columns resolve their names against the rows. If the elements of a list become rows, the list's path
and the paths of its members name values of the element; all other names are those of the record.
The elements come from what the View shows of the list, so that hidden members are unknown and
masked ones are masked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import JSONB

from penstockd.catalog import Field, Kind
from penstockd.errors import ValueInvalid
from penstockd.policy.read import Unfolding
from penstockd.policy.view import View
from penstockd.query import FieldUnknown
from penstockd.shapes.model import ListRows
from penstockd.shapes.operators import Sql
from penstockd.store.tables import column_type

#: The key of the element's number in the values of a row (see ``ShapedColumn.run``).
ROW_NUMBER = "~row"

_TEXTS = (Kind.STRING, Kind.ENUM)


class RecordRows:
    """One row for each record: the names are those of the View."""

    #: The list whose elements are the rows; None if the rows are records.
    list: Field | None = None
    #: How the elements are read beside their record; None if the rows are records.
    unfolding: Unfolding | None = None

    def __init__(self, view: View) -> None:
        self.view = view
        self.names: Mapping[str, Field] = view.names

    def column(self, field: Field) -> Sql:
        """A field's value in a row, as the View shows it."""
        return self.view.column(field)

    def owner(self, field: Field) -> Field:
        """The field of the dataset that a field belongs to."""
        return field


class ElementRows(RecordRows):
    """One row for each element of a list."""

    list: Field

    def __init__(self, view: View, rows: ListRows) -> None:
        """Raise ValueInvalid for a field that is unknown or no list that can become rows."""
        super().__init__(view)
        self.list = _find_list(view, rows.field)
        self._skip_empty = rows.skip_empty
        self._members = frozenset(self._name_values())
        # The list itself beside each of its elements would be as large as its square.
        record = {path: f for path, f in view.names.items() if f is not self.list}
        self.names = record | {p: f for f in self._members for p in (f.path, f.json_path)}

    def column(self, field: Field) -> Sql:
        """A value of the element, or of its record."""
        if field not in self._members:
            return super().column(field)
        value: Sql = self._elements.c.item
        steps = field.json_steps[len(self.list.json_steps) :]
        for step in steps[:-1]:
            value = value.op("->", return_type=JSONB())(_quote_name(step))
        if field.is_json:
            return value.op("->", return_type=JSONB())(_quote_name(steps[-1]))
        if steps:
            text = value.op("->>", return_type=sa.Text())(_quote_name(steps[-1]))
        else:
            text = value.op("#>>", return_type=sa.Text())(sa.literal_column("'{}'::text[]"))
        if field.kind in _TEXTS:
            return text.collate("C")
        if field.kind is Kind.BYTES:
            return sa.func.decode(text, sa.literal_column("'base64'"), type_=sa.LargeBinary())
        return sa.cast(text, column_type(field))

    @property
    def number(self) -> Sql:
        """The number of the element within its record, from 1; NULL without an element."""
        return sa.cast(self._elements.c.place, sa.Integer())

    def owner(self, field: Field) -> Field:
        """The field of the dataset that a field belongs to."""
        return self.list if field in self._members else field

    @cached_property
    def unfolding(self) -> Unfolding:  # type: ignore[override]  # None only where rows are records
        """How the elements are read beside their record."""
        return Unfolding(self.list, self._elements, self._elements.c.place, not self._skip_empty)

    @cached_property
    def _elements(self) -> sa.FromClause:
        elements = sa.func.jsonb_array_elements(self.view.column(self.list))
        item = sa.column("item", JSONB())
        rows = elements.table_valued(item, with_ordinality="place", name="~element")
        return rows.render_derived()

    def _name_values(self) -> tuple[Field, ...]:
        """The values of an element, with their paths from the record on."""
        if self.list.element_message is not None:
            return tuple(self.view.members(self.list))
        element = self.list.element
        assert element is not None, "a list has elements"
        return (replace(element, path=self.list.path, json_path=self.list.json_path),)


def make_rows(view: View, rows: ListRows | None) -> RecordRows:
    """The rows of a shape in a View. Raises ValueInvalid."""
    return RecordRows(view) if rows is None else ElementRows(view, rows)


def refuse_list_rows(name: str, rows: RecordRows) -> None:
    """Raise ValueInvalid for the shape ``name`` if its rows are no records: a change is one
    record."""
    if rows.list is not None:
        raise ValueInvalid.of(
            "shape",
            f"'{name}' makes a row of each element of '{rows.list.path}': only exports, pages and"
            " previews take such a shape, since a change is one record",
        )


def _find_list(view: View, path: str) -> Field:
    field = view.field(path)
    if field is None:
        raise ValueInvalid.of("rows.field", FieldUnknown(path).message)
    if field.kind is not Kind.LIST:
        raise ValueInvalid.of("rows.field", f"'{path}' is not a list")
    return field


def _quote_name(name: str) -> Sql:
    """A name of the model as an SQL literal."""
    quoted = name.replace("'", "''")
    return sa.literal_column(f"'{quoted}'::text", sa.Text())
