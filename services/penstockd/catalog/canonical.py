"""Turns the value of a field in a message into its canonical value (see ``values``)."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from penstockd.catalog.model import Field, Kind


def from_message(field: Field) -> Callable[[Any], Any] | None:
    """A function that makes the result of ``record.make_getter`` canonical; None if it is already.

    The message must come from the hub itself, since it is not checked; for others see
    ``values.check_value``.
    """
    match field.kind:
        case Kind.ENUM:
            names: dict[int, str] = {}
            for name, number in (field.enum_values or {}).items():
                names.setdefault(number, name)
            # A value that the model no longer has equals none of its values.
            return lambda number: names.get(number, str(number))
        case Kind.DECIMAL:
            absent = None if field.presence else Decimal(0)
            return lambda text: Decimal(text) if text else absent
        case Kind.DATE:
            return lambda text: dt.date.fromisoformat(text) if text else None
    return None
