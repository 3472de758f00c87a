"""Converts stored values of a field in an earlier model to values of the field in the current one.

Members and enum values are identified by their numbers, so that they keep their values when
renamed. If the kind differs, the value's text is parsed like text from a file. Values that the new
model cannot express raise ValueRefused: nothing is rounded or cut. Only members that the new model
no longer has are dropped, and the migration's plan names them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

import orjson

from penstockd.catalog import scalars
from penstockd.catalog.comparison import ShapeComparison
from penstockd.catalog.elements import default_value
from penstockd.catalog.manifest import StoredField, ValueShape
from penstockd.catalog.model import Field, FieldClass, Kind
from penstockd.catalog.scalars import ValueRefused
from penstockd.catalog.values import json_parser, load_json

#: JSON data of the old shape -> JSON data of the new one.
Translate = Callable[[Any], Any]

_REPEATED = ("LIST", "MAP")
_JSON = (*_REPEATED, "STRUCT")


class FieldConversion:
    """Converts the values of one column, one at a time."""

    def __init__(
        self, before: StoredField, after: StoredField, field: Field, shapes: ShapeComparison
    ) -> None:
        self._field = field
        self._shapes = shapes
        self._old = before.shape
        self._old_field = None if before.shape.kind in _JSON else _scalar_field(before.shape)
        self._translate = self._translation(before.shape, after.shape)
        self._parse = json_parser(field)
        self._unset: tuple[Any, ...] = ()
        if field.kind not in (Kind.STRING, Kind.BYTES) and not before.nullable:
            self._unset = {"STRING": ("",), "LIST": ([],)}.get(before.shape.kind, ())
        if field.repeated:
            self._unset = ()

    def __call__(self, stored: Any) -> Any:
        """The new stored value of an old stored value; None for None. Raises ValueRefused."""
        if stored is None:
            return None
        if self._old_field is None:
            data = load_json(stored)
        else:
            data = scalars.to_json(self._old_field, stored)
        if data in self._unset:  # it was never set, and stays unset
            return None if self._field.nullable else default_value(self._field)
        value = self._parse(self._translate(data))
        return orjson.dumps(value).decode() if self._field.is_json else value

    def _translation(self, old: ValueShape, new: ValueShape) -> Translate:
        if new.kind == "LIST" and old.kind not in _REPEATED:
            assert new.element is not None
            one = self._translation(old, new.element)
            return lambda data: [one(data)]
        if old.kind == "LIST" and new.kind not in _REPEATED:
            assert old.element is not None
            return _translate_only(self._translation(old.element, new))
        if old.kind != new.kind:
            return _by_text(new)
        match new.kind:
            case "ENUM":
                return _enum_names(old.enum_values, new.enum_values)
            case "LIST" | "MAP":
                return self._of_elements(old, new)
            case "MESSAGE":
                return self._of_members(old.message, new.message)
        return lambda data: data

    def _of_elements(self, old: ValueShape, new: ValueShape) -> Translate:
        assert old.element is not None
        assert new.element is not None
        one = self._translation(old.element, new.element)
        if new.kind == "LIST":
            return lambda data: [one(v) for v in data]
        return lambda data: {k: one(v) for k, v in data.items()}

    def _of_members(self, old: str, new: str) -> Translate:
        """Translate members to their new names; made lazily, since a message can contain itself."""
        made: dict[str, tuple[str, Translate] | None] = {}
        numbers = {m.json_name: m for m in self._shapes.before[old]}
        known = {m.number: m for m in self._shapes.after[new]}

        def member(name: str) -> tuple[str, Translate] | None:
            if name not in made:
                before = numbers.get(name)
                after = known.get(before.number) if before is not None else None
                made[name] = None
                if before is not None and after is not None:
                    made[name] = after.json_name, self._translation(before.shape, after.shape)
            return made[name]

        def translate(data: Any) -> Any:
            found = {}
            for name, value in data.items():
                target = member(name)
                if target is not None:
                    found[target[0]] = target[1](value)
            return found

        return translate


def _scalar_field(shape: ValueShape) -> Field:
    """A field with a shape that is neither a list nor a map."""
    return Field(
        path="",
        json_path="",
        kind=Kind[shape.kind],
        field_class=FieldClass.PUBLIC,
        nullable=True,
        enum_values=shape.enum_values or None,
        precision=shape.precision,
        scale=shape.scale,
    )


def _translate_only(translate: Translate) -> Translate:
    def only(data: Any) -> Any:
        if len(data) != 1:
            raise ValueRefused(f"has {len(data)} elements, not one")
        return translate(data[0])

    return only


def _enum_names(old: Mapping[str, int], new: Mapping[str, int]) -> Translate:
    names: dict[int, str] = {}
    for name, number in new.items():
        names.setdefault(number, name)
    renamed = {
        name: name if new.get(name) == number else names[number]
        for name, number in old.items()
        if number in names
    }

    def rename(name: Any) -> str:
        try:
            return renamed[name]
        except KeyError:
            raise ValueRefused(f"is {name!r}, which is not one of {', '.join(new)}") from None

    return rename


def _by_text(new: ValueShape) -> Translate:
    """Translate a value of another kind through its text."""

    def translate(data: Any) -> Any:
        if isinstance(data, bool):
            text = "true" if data else "false"
        elif isinstance(data, str | int | float | Decimal):
            text = str(data)
        else:
            raise ValueRefused(f"is {scalars.type_name(data)}, not {new.kind.lower()}")
        if new.kind == "BOOL":
            if text not in ("true", "false"):
                raise ValueRefused(f"is {text[:40]!r}, not true or false")
            return text == "true"
        return text

    return translate
