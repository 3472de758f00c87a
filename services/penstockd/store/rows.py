"""Full rows of a dataset: the values of absent fields, and whether two values are the same."""

from __future__ import annotations

import functools
from decimal import Decimal
from typing import Any

import orjson

from penstockd.catalog import Dataset, Field, Kind
from penstockd.catalog.structs import is_same_struct

_EMPTY: dict[Kind, Any] = {
    Kind.STRING: "",
    Kind.BOOL: False,
    Kind.INT32: 0,
    Kind.INT64: 0,
    Kind.UINT32: 0,
    Kind.UINT64: 0,
    Kind.FLOAT: 0.0,
    Kind.DOUBLE: 0.0,
    Kind.BYTES: b"",
    Kind.DECIMAL: Decimal(0),
    Kind.LIST: "[]",
    Kind.MAP: "{}",
}


class Defaults:
    """The values of fields that a writer leaves out (proto3 defaults, or NULL)."""

    def __init__(self, dataset: Dataset) -> None:
        self._template = [None if f.nullable else _empty_value(f) for f in dataset.fields]
        prefixes = dict.fromkeys(f.steps[:-1] for f in dataset.fields if len(f.steps) > 1)
        # For each message: all leaves in it or deeper, and those of its own that have a default.
        # One within another is present only if something in itself is.
        self._nested = [
            (
                [i for i, f in enumerate(dataset.fields) if f.steps[: len(prefix)] == prefix],
                [
                    (i, _empty_value(f))
                    for i, f in enumerate(dataset.fields)
                    if f.steps[:-1] == prefix and not f.presence
                ],
            )
            for prefix in prefixes
        ]

    @classmethod
    @functools.cache
    def of(cls, dataset: Dataset) -> Defaults:
        """The defaults of a dataset, made once."""
        return cls(dataset)

    def value(self, index: int) -> Any:
        """The value of the field at ``index`` when a writer unsets it."""
        return self._template[index]

    def within(self, index: int) -> Any:
        """The value of the field at ``index`` if it is absent and its nested message is present."""
        implicit = {i: empty for _, leaves in self._nested for i, empty in leaves}
        return implicit.get(index, self._template[index])

    def complete(self, row: list[Any]) -> None:
        """Where a nested message is present, set its absent leaves that are not ``optional``."""
        for members, implicit in self._nested:
            if any(row[i] is not None for i in members):
                for i, empty in implicit:
                    if row[i] is None:
                        row[i] = empty

    def complete_columns(self, columns: list[list[Any]]) -> None:
        """The same as ``complete`` for a batch of rows, passed as columns."""
        for members, implicit in self._nested:
            lacking = [(i, empty) for i, empty in implicit if None in columns[i]]
            if not lacking:
                continue
            within = [columns[i] for i in members]
            present = [any(v is not None for v in row) for row in zip(*within, strict=True)]
            for i, empty in lacking:
                columns[i] = [
                    empty if v is None and there else v
                    for v, there in zip(columns[i], present, strict=True)
                ]


def stored_row(fields: tuple[Field, ...], row: list[Any]) -> list[Any]:
    """Turn canonical values into those for the database, in place: LIST, MAP and STRUCT as JSON
    text."""
    for i in json_places(fields):
        if row[i] is not None:
            row[i] = orjson.dumps(row[i]).decode()
    return row


@functools.lru_cache(1024)
def json_places(fields: tuple[Field, ...]) -> tuple[int, ...]:
    """The indexes of LIST, MAP and STRUCT fields."""
    return tuple(i for i, f in enumerate(fields) if f.is_json)


def is_unchanged(field: Field, old: Any, new: Any) -> bool:
    """Whether two values of a field are the same.

    Decimals are compared as numbers, whatever their trailing zeros, since fixed-scale formats add
    or drop zeros. NaN equals NaN.
    """
    if field.kind is Kind.STRUCT and old is not None and new is not None:
        return is_same_struct(old, new)
    if field.repeated and old is not None and new is not None:
        before, after = orjson.loads(old), orjson.loads(new)
        return bool(before == after) or _is_same_data(before, after, (), *_nested_places(field))
    if isinstance(old, float) and isinstance(new, float):
        return old == new or (old != old and new != new)
    return bool(old == new)


Places = frozenset[tuple[str, ...]]


@functools.lru_cache(1024)
def _nested_places(field: Field) -> tuple[Places, Places]:
    """The places of decimals, and of maps, in the JSON of a field: the names of members that lead
    there, with * for the keys of a map."""
    decimals: set[tuple[str, ...]] = set()
    maps: set[tuple[str, ...]] = set()

    def visit(one: Field, at: tuple[str, ...]) -> None:
        if one.kind is Kind.MAP:
            maps.add(at)
            at = (*at, "*")
        if one.element is not None and one.element.kind is Kind.DECIMAL:
            decimals.add(at)
        for member in one.members:
            place = (*at, *member.json_steps[len(one.json_steps) :])
            if member.repeated:
                visit(member, place)
            elif member.kind is Kind.DECIMAL:
                decimals.add(place)

    visit(field, ())
    return frozenset(decimals), frozenset(maps)


def _is_same_data(old: Any, new: Any, at: tuple[str, ...], decimals: Places, maps: Places) -> bool:
    """Whether JSON data is the same if decimals are compared as numbers."""
    if not decimals:
        return False
    if isinstance(old, dict) and isinstance(new, dict):
        return old.keys() == new.keys() and all(
            v == new[k] or _is_same_data(v, new[k], (*at, "*" if at in maps else k), decimals, maps)
            for k, v in old.items()
        )
    if isinstance(old, list) and isinstance(new, list):
        pairs = zip(old, new, strict=False)
        return len(old) == len(new) and all(
            a == b or _is_same_data(a, b, at, decimals, maps) for a, b in pairs
        )
    return (
        at in decimals
        and isinstance(old, str)
        and isinstance(new, str)
        and (Decimal(old) == Decimal(new))
    )


def _empty_value(field: Field) -> Any:
    if field.is_etag:
        return 0
    if field.kind is Kind.ENUM:
        assert field.enum_values is not None
        return next(name for name, number in field.enum_values.items() if number == 0)
    return _EMPTY.get(field.kind)
