"""Random shapes over the fields that a View shows."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from penstockd.catalog import Field, Kind
from penstockd.shapes.model import NumberFormat, ShapeColumn, ShapeDefinition

_WHOLE = (Kind.INT32, Kind.INT64, Kind.UINT32, Kind.UINT64)
_NUMBERS = (*_WHOLE, Kind.DECIMAL, Kind.FLOAT, Kind.DOUBLE)
_JOINED = (Kind.STRING, Kind.ENUM, Kind.BOOL, Kind.DATE, *_WHOLE)
_EXPRESSIONS = {
    Kind.STRING: ["{0} + '!'", "size({0})", "{0} == null ? 'none' : {0}", "{0}.upperAscii()"],
    Kind.ENUM: ["{0} in ['RED', 'ACTIVE']", "{0} + '/'"],
    Kind.BOOL: ["!{0}", "{0} ? 'yes' : 'no'"],
    Kind.INT32: ["{0} + 1", "{0} % 7"],
    Kind.INT64: ["{0} * 2", "string({0})"],
    Kind.UINT32: ["double({0}) / 3.0"],
    Kind.DOUBLE: ["{0} * 2.0", "int({0})"],
    Kind.FLOAT: ["{0} + 1.0"],
    Kind.DECIMAL: ["{0} >= 12.5", "{0} * 2.0"],
    Kind.DATE: ["{0}.substring(0, 4)"],
    Kind.TIMESTAMP: ["{0}.getFullYear()"],
}
_DEFAULTS = {Kind.STRING: "none", Kind.BOOL: "true", Kind.INT32: "7", Kind.DECIMAL: "1.50"}


def draw_shape(dataset: str, fields: Sequence[Field], rng: random.Random) -> ShapeDefinition:
    """A shape of one to eight columns."""
    columns = [_draw_column(f"c{n}", fields, rng) for n in range(rng.randint(1, 8))]
    return ShapeDefinition(dataset, columns)


def _draw_column(name: str, fields: Sequence[Field], rng: random.Random) -> ShapeColumn:
    if not fields or rng.random() < 0.1:
        return ShapeColumn(name, constant=rng.choice(["", "Penstock", "ü,;"]))
    field = rng.choice(fields)
    forms = _EXPRESSIONS.get(field.kind)
    reserved = "package" in field.path.split(".")  # a word of CEL
    if forms and not reserved and rng.random() < 0.3:
        return ShapeColumn(name, expression=rng.choice(forms).format(field.path))
    steps = _draw_steps(field, rng) if rng.random() < 0.7 else {}
    return ShapeColumn(name, field=field.path, **steps)


def _draw_steps(field: Field, rng: random.Random) -> dict[str, Any]:
    steps: dict[str, Any] = {}
    kind, element = field.kind, field.element
    if kind is Kind.LIST and element is not None and element.kind in _JOINED:
        steps["join"] = rng.choice([";", ", ", ""])
    elif kind in (Kind.DATE, Kind.TIMESTAMP):
        day = "%d.%m.%Y" if kind is Kind.DATE or rng.random() < 0.5 else "%Y-%m-%dT%H:%M:%S.%f"
        steps["time"] = day
    elif kind in _NUMBERS and rng.random() < 0.7:
        group = rng.choice(["", ".", "'"])
        steps["number"] = NumberFormat(rng.choice([0, 2, 6]), ",", group)
    elif kind in (Kind.STRING, Kind.ENUM, Kind.BOOL, *_WHOLE):
        steps["values"] = {"a": "A", "RED": "1", "true": "yes", "0": "zero"}
        steps["otherwise"] = rng.choice([None, "other"])
    default = "none" if steps else _DEFAULTS.get(kind)
    if default is not None and rng.random() < 0.5:
        steps["default"] = default
    return steps
