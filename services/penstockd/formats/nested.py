"""Lists, maps and the messages in them as Arrow's LIST, MAP and STRUCT.

The database returns them as JSON text. The types follow from the fields alone, so that each batch
and export of the same fields has the same schema; every part is nullable, since it may be unset.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

import orjson

from penstockd.catalog.model import Field, Kind

#: From a value in canonical JSON to the input of an Arrow array.
Convert = Callable[[Any], Any]
#: The Arrow type of a field that is neither a list nor a map.
ScalarType = Callable[[Field], Any]


@dataclass(frozen=True, slots=True)
class NestedColumn:
    """The type of a column of lists or maps, and the conversion of one value."""

    type: Any
    convert: Convert

    def values(self, texts: Sequence[str | None]) -> list[Any]:
        """The values of a column of JSON text, for an array of ``type``."""
        convert, loads = self.convert, orjson.loads
        return [None if text is None else convert(loads(text)) for text in texts]


def nested_column(field: Field, pa: Any, scalar: ScalarType) -> NestedColumn | None:
    """The nested type of a list or map; None if no Arrow type can represent it: a message that
    contains itself, or one without fields."""
    if not field.repeated or any(
        f.recursive or (f.element_message is not None and not f.members) for f in field.walk()
    ):
        return None
    return _Maker(pa, scalar).column(field)


class _Maker:
    def __init__(self, pa: Any, scalar: ScalarType) -> None:
        self._pa, self._scalar = pa, scalar

    def column(self, field: Field) -> NestedColumn:
        """A list or map."""
        if field.element is not None:
            item = NestedColumn(
                self._scalar(field.element), _CONVERTS.get(field.element.kind, _keep_value)
            )
        else:
            item = self._message(field.members, len(field.steps))
        one = item.convert
        if field.kind is Kind.LIST:
            if one is _keep_value:
                return NestedColumn(self._pa.list_(item.type), _keep_value)
            return NestedColumn(self._pa.list_(item.type), lambda v: [one(x) for x in v])
        assert field.map_key is not None, "a map has keys"
        key = _MAP_KEYS.get(field.map_key, int)
        key_type = self._scalar(Field("", "", field.map_key, field.field_class, False))
        return NestedColumn(
            self._pa.map_(key_type, item.type),
            lambda v: [(key(k), None if x is None else one(x)) for k, x in v.items()],
        )

    def _message(self, members: Sequence[Field], depth: int) -> NestedColumn:
        """A message, from the leaves in it."""
        fields, converts = [], []
        for name, json_name, leaves in _by_step(members, depth):
            leaf = leaves[0]
            if len(leaf.steps) > depth + 1:
                part = self._message(leaves, depth + 1)
            elif leaf.repeated:
                part = self.column(leaf)
            else:
                part = NestedColumn(self._scalar(leaf), _CONVERTS.get(leaf.kind, _keep_value))
            fields.append(self._pa.field(name, part.type))
            converts.append((name, json_name, part.convert))

        def convert(value: Any) -> dict[str, Any]:
            found = {}
            for name, json_name, one in converts:
                member = value.get(json_name)
                if member is not None:
                    found[name] = one(member)
            return found

        return NestedColumn(self._pa.struct(fields), convert)


def _by_step(members: Sequence[Field], depth: int) -> Iterator[tuple[str, str, list[Field]]]:
    """The members by their names at a depth, in order: proto name, JSON name, leaves."""
    found: dict[str, list[Field]] = {}
    for member in members:
        found.setdefault(member.steps[depth], []).append(member)
    for name, leaves in found.items():
        yield name, leaves[0].json_steps[depth], leaves


def _keep_value(value: Any) -> Any:
    return value


_CONVERTS: dict[Kind, Convert] = {
    Kind.INT64: int,
    Kind.UINT64: int,
    Kind.FLOAT: float,
    Kind.DOUBLE: float,
    Kind.BYTES: base64.b64decode,
    Kind.DECIMAL: Decimal,
    Kind.DATE: date.fromisoformat,
    Kind.TIMESTAMP: datetime.fromisoformat,
}
_MAP_KEYS: dict[Kind, Convert] = {Kind.STRING: _keep_value, Kind.BOOL: lambda key: key == "true"}
