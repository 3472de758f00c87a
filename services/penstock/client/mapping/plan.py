"""Mapping files: their form, checked as they are read.

A mapping file is TOML. ``mappings/northwind.toml`` shows all of it:

    [source]                       how the files are written: delimiter, encoding
    [maps.NAME]                    text in the source = text in the record
    [lookups.NAME]                 file, key: another CSV file, read whole
    [[datasets]]                   dataset, file: one row becomes one record
    [datasets.fields]              field path = value
    [datasets.children.FIELD]      file, key, parent, sorted: rows of another file become the
    [datasets.children.FIELD.fields]   elements of the repeated field

A value is a column's name, or a table with one of

    column = "name"                a column
    value = …                      a constant
    template = "Fax: {fax}"        columns within a text; a list of them is joined with
                                   ``separator`` (a line end), without those that lack a column

and, after a column and in this order,

    null_if = ["", "-"]            texts that mean NULL
    lookup = "NAME", take = "col"  the column of the row of the lookup that has this key
    pattern = "(.*)"               the first group of a regular expression that matches the
                                   whole; NULL if it does not match
    map = "NAME" or a table        the text to put in place of this one; ``other`` for the rest
    present = "SHIPPED"            what to put in place of any value
    null = "PLACED"                what to put in place of NULL
    format = "%d.%m.%Y"            how a date or time is written; ``timezone`` "Europe/Berlin"
    split = ";"                    the mark between the values of a repeated field

A NULL leaves its field out.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from penstock.client.mapping.errors import MappingError
from penstock.client.mapping.table import Dialect

_SUFFIX = ".toml"
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Value:
    """How to make the value of one field; the keys are those of the file."""

    column: str | None = None
    value: Any = None
    template: str | list[str] | None = None
    separator: str = "\n"
    null_if: list[str] = field(default_factory=list)
    lookup: str | None = None
    take: str | None = None
    pattern: str | None = None
    map: str | dict[str, Any] | None = None
    other: str | None = None
    present: str | None = None
    null: str | None = None
    format: str | None = None
    timezone: str | None = None
    split: str | None = None


@dataclass(frozen=True, slots=True)
class Lookup:
    """Another CSV file, whose rows are found by the column ``key``."""

    file: str
    key: str


@dataclass(frozen=True, slots=True)
class Children:
    """Rows of ``file`` whose column ``key`` holds what the parent's column ``parent`` holds.

    ``sorted``: both files have their keys in the same order, so that neither is held in memory.
    """

    file: str
    key: str
    parent: str
    sorted: bool
    fields: Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class DatasetPlan:
    """How one file becomes one dataset."""

    dataset: str
    file: str
    fields: Mapping[str, Value]
    children: Mapping[str, Children]


@dataclass(frozen=True, slots=True)
class Plan:
    """A mapping file. Datasets are loaded in its order."""

    name: str
    dialect: Dialect
    maps: Mapping[str, Mapping[str, Any]]
    lookups: Mapping[str, Lookup]
    datasets: tuple[DatasetPlan, ...]


def load_plan(name: str) -> Plan:
    """The plan of a mapping file: a path, or the name of one that comes with the client.

    Raises MappingError, naming the file and the key, if anything has the wrong form.
    """
    path = Path(name)
    shipped = resources.files("penstock.client") / "mappings"
    if path.suffix == _SUFFIX or path.is_file():
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise MappingError(f"{name}: {getattr(error, 'strerror', None) or error}") from error
        return parse_plan(text, path.name)
    if (file := shipped / f"{path.name}{_SUFFIX}").is_file():
        return parse_plan(file.read_text("utf-8"), file.name)
    known = sorted(
        f.name.removesuffix(_SUFFIX) for f in shipped.iterdir() if f.name.endswith(_SUFFIX)
    )
    raise MappingError(f"there is no mapping '{name}'; name a file, or one of {', '.join(known)}")


def parse_plan(text: str, name: str) -> Plan:
    """The plan in the text of a mapping file; ``name`` is for the messages."""
    try:
        whole = _Keys(tomllib.loads(text), name)
    except tomllib.TOMLDecodeError as error:
        raise MappingError(f"{name}: {error}") from None
    source = whole.keys("source", optional=True)
    plan = Plan(
        name=name,
        dialect=Dialect(source.text("delimiter", ","), source.text("encoding", "utf-8-sig")),
        maps={key: table.rest() for key, table in whole.named("maps")},
        lookups={
            key: _refuse_unknown_keys(table, Lookup(table.text("file"), table.text("key")))
            for key, table in whole.named("lookups")
        },
        datasets=tuple(_parse_dataset(table) for table in whole.listed("datasets")),
    )
    if len(plan.dialect.delimiter) != 1:
        raise MappingError(f"{name}: source.delimiter must be one character")
    source.close()
    whole.close()
    return plan


def _parse_dataset(table: _Keys) -> DatasetPlan:
    children = {name: _parse_children(child) for name, child in table.named("children")}
    plan = DatasetPlan(
        table.text("dataset"), table.text("file"), _parse_fields(table.keys("fields")), children
    )
    return _refuse_unknown_keys(table, plan)


def _parse_children(table: _Keys) -> Children:
    key = table.text("key")
    plan = Children(
        file=table.text("file"),
        key=key,
        parent=table.text("parent", key),
        sorted=table.flag("sorted"),
        fields=_parse_fields(table.keys("fields")),
    )
    return _refuse_unknown_keys(table, plan)


def _parse_fields(table: _Keys, prefix: str = "") -> dict[str, Value]:
    """Values by field path; TOML reads an unquoted ``a.b`` as a table, which means the same."""
    values: dict[str, Value] = {}
    for key, raw in table.rest().items():
        path = f"{prefix}{key}"
        inner = _Keys(raw, f"{table.where}.{key}") if isinstance(raw, dict) else None
        if isinstance(raw, str):
            values[path] = Value(column=raw)
        elif inner is None:
            raise MappingError(f"{table.where}.{key}: a column's name or a table is expected")
        elif {"column", "value", "template"} & raw.keys():
            values[path] = _parse_value(inner)
        elif all(isinstance(v, dict | str) for v in raw.values()) and not raw.keys() & _VALUE_KEYS:
            values.update(_parse_fields(inner, f"{path}."))
        else:
            raise MappingError(f"{inner.where}: one of column, value and template is needed")
    return values


_VALUE_KEYS = {f.name for f in fields(Value)}
_TYPES: dict[str, tuple[type, ...]] = {
    "value": (str, int, float, bool, list),
    "template": (str, list),
    "null_if": (list,),
    "map": (str, dict),
}


def _parse_value(table: _Keys) -> Value:
    raw = table.rest()
    for key, given in raw.items():
        if key not in _VALUE_KEYS:
            raise MappingError(f"{table.where}: unknown key '{key}'")
        texts = given if isinstance(given, list) and key != "value" else []
        kinds = _TYPES.get(key, (str,))
        if not isinstance(given, kinds) or not all(isinstance(text, str) for text in texts):
            raise MappingError(f"{table.where}.{key}: a value of this type makes no sense here")
    origin = raw.keys() & {"column", "value", "template"}
    if len(origin) > 1:
        raise MappingError(f"{table.where}: only one of {', '.join(sorted(origin))} can be")
    if ("lookup" in raw) != ("take" in raw):
        raise MappingError(f"{table.where}: lookup and take go together")
    if "other" in raw and "map" not in raw:
        raise MappingError(f"{table.where}: other needs a map")
    if "column" not in raw and (alone := raw.keys() & _OF_COLUMNS):
        raise MappingError(f"{table.where}: {', '.join(sorted(alone))} can only follow a column")
    return Value(**raw)


_OF_COLUMNS = {"null_if", "lookup", "take", "pattern", "map", "other", "present", "null"}


class _Keys:
    """A table of the file that knows its place and which of its keys were read."""

    def __init__(self, table: dict[str, Any], where: str) -> None:
        self._table = dict(table)
        self.where = where

    def text(self, key: str, default: str | None = None) -> str:
        value = self._table.pop(key, default)
        if not isinstance(value, str):
            raise MappingError(f"{self.where}: {key} must be there, and a text")
        return value

    def flag(self, key: str) -> bool:
        value = self._table.pop(key, False)
        if not isinstance(value, bool):
            raise MappingError(f"{self.where}.{key} must be true or false")
        return value

    def keys(self, key: str, *, optional: bool = False) -> _Keys:
        value = self._table.pop(key, {} if optional else None)
        if not isinstance(value, dict):
            raise MappingError(f"{self.where}: a table [{key}] is needed")
        return _Keys(value, f"{self.where}: {key}" if ":" not in self.where else self.at(key))

    def named(self, key: str) -> list[tuple[str, _Keys]]:
        table = self.keys(key, optional=True)
        return [(name, table.keys(name)) for name in list(table._table)]

    def listed(self, key: str) -> list[_Keys]:
        value = self._table.pop(key, None)
        if not isinstance(value, list) or not value or not isinstance(value[0], dict):
            raise MappingError(f"{self.where}: at least one [[{key}]] is needed")
        return [_Keys(v, f"{self.where}: {key}[{i}]") for i, v in enumerate(value)]

    def rest(self) -> dict[str, Any]:
        rest, self._table = self._table, {}
        return rest

    def close(self) -> None:
        if self._table:
            raise MappingError(f"{self.where}: unknown key '{next(iter(self._table))}'")

    def at(self, key: str) -> str:
        return f"{self.where}.{key}"


def _refuse_unknown_keys(table: _Keys, value: T) -> T:
    table.close()
    return value
