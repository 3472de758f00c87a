"""Dates and times that the database can store and the model cannot express.

Not even the driver can read them: a row that contains one cannot be fetched.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, literal_column, or_

from penstockd.catalog import Field, Kind

#: The first and the last value of each kind that the model can express, as SQL.
_EXTREMES = {
    Kind.DATE: ("DATE '0001-01-01'", "DATE '9999-12-31'"),
    Kind.TIMESTAMP: (
        "TIMESTAMPTZ '0001-01-01 00:00:00+00'",
        "TIMESTAMPTZ '9999-12-31 23:59:59.999999+00'",
    ),
}


def is_extreme(column: ColumnElement[Any], field: Field) -> ColumnElement[bool] | None:
    """Whether the column of a field contains a date before the year 1 or after 9999; None if its
    kind has no such values."""
    if field.kind not in _EXTREMES:
        return None
    first: ColumnElement[Any] = literal_column(_EXTREMES[field.kind][0])
    last: ColumnElement[Any] = literal_column(_EXTREMES[field.kind][1])
    return or_(column < first, column > last)
