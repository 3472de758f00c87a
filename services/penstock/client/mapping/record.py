"""Whole records: a plan bound to the files of a folder and the fields of a dataset."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.client.mapping.children import ChildRows
from penstock.client.mapping.errors import BadRow, BadValue, MappingError
from penstock.client.mapping.plan import DatasetPlan, Plan, Value
from penstock.client.mapping.table import Row, Table, open_table
from penstock.client.mapping.value import (
    Convert,
    Lookups,
    Read,
    Reader,
    make_converter,
    parse_constant,
)
from penstock.client.record import is_struct
from penstock.client.stubs import Descriptor, FieldDescriptor, field_options, load_stubs

_TIMESTAMP = "google.protobuf.Timestamp"


@dataclass(frozen=True, slots=True)
class _Field:
    """One field: its path, and how to make its value (``read`` None: a constant)."""

    path: str
    steps: tuple[str, ...]
    read: Read | None
    convert: Convert
    constant: Any = None
    split: str | None = None

    def put(self, row: Row, record: dict[str, Any]) -> None:
        """Adds the value of the row to the record. Raises BadValue."""
        value = self.constant
        if self.read is not None:
            text = self.read(row)
            if text is None:
                return
            value = self.convert(text) if self.split is None else self._list(text, self.split)
        for step in self.steps[:-1]:
            record = record.setdefault(step, {})
        record[self.steps[-1]] = value

    def _list(self, text: str, mark: str) -> list[Any]:
        return [self.convert(part.strip()) for part in text.split(mark) if part.strip()]


class RecordSource:
    """The records of one dataset, made row by row."""

    def __init__(
        self, plan: Plan, dataset: DatasetPlan, folder: Path, lookups: Lookups, where: str
    ) -> None:
        """Opens the files and checks every column and field. Raises MappingError."""
        stubs = load_stubs(dataset.dataset)
        self.dataset = dataset.dataset
        self.table = open_table(folder / dataset.file, plan.dialect)
        record = stubs.record_class.DESCRIPTOR
        reader = Reader(self.table, plan.maps, lookups)
        self._fields = _bind_fields(dataset.fields, record, reader, f"{where}.fields")
        for key in stubs.key_fields:
            if key.name not in dataset.fields:
                raise MappingError(f"{where}.fields: the key '{key.name}' is missing")
        self.readers = [reader]
        self._children = []
        for name, children in dataset.children.items():
            place = f"{where}.children.{name}"
            field = record.fields_by_name.get(name)
            if field is None or not field.is_repeated or _is_scalar(field) or _is_map(field):
                raise MappingError(f"{place}: {record.name} has no repeated message '{name}'")
            parent = reader.index(children.parent, place)
            table = open_table(folder / children.file, plan.dialect)
            inner = Reader(table, plan.maps, lookups)
            fields = _bind_fields(children.fields, field.message_type, inner, f"{place}.fields")
            rows = ChildRows(table, inner.index(children.key, place), children.sorted)
            self._children.append((field, fields, parent, rows))
            self.readers.append(inner)

    def records(self) -> Iterator[tuple[int, dict[str, Any], list[BadRow]]]:
        """Each row's line, its record in proto JSON, and its errors.

        Child rows that no row claimed come last, each with an empty record. Raises MappingError
        if the rest of a file cannot be read.
        """
        for line, row in self.table.rows():
            record: dict[str, Any] = {}
            bad = list(_fill_record(record, self._fields, line, row, self.table))
            for field, fields, parent, rows in self._children:
                bad += _fill_children(record, field, fields, rows, row[parent])
            yield line, record, bad
        for field, _, _, rows in self._children:
            for line, key in rows.unclaimed():
                reason = f"{self.table.path.name} has no row '{key}'"
                yield line, {}, [BadRow(rows.table.path.name, line, field.name, reason)]


def open_lookups(plan: Plan, folder: Path) -> Lookups:
    """Reads the lookup files whole. Raises MappingError if a file has a key twice."""
    lookups = {}
    for name, lookup in plan.lookups.items():
        table = open_table(folder / lookup.file, plan.dialect)
        if lookup.key not in table.header:
            raise MappingError(
                f"{plan.name}: lookups.{name}: {lookup.file} has no column '{lookup.key}'"
            )
        at = table.index(lookup.key)
        rows: dict[str, Row] = {}
        for line, row in table.rows():
            key = row[at]
            if key is None or key in rows:
                raise MappingError(f"{lookup.file}, line {line}: the key '{key}' is not unique")
            rows[key] = row
        lookups[name] = (table, rows)
    return lookups


def _bind_fields(
    values: Mapping[str, Value], message: Descriptor, reader: Reader, where: str
) -> list[_Field]:
    return [_bind_field(path, v, message, reader, f"{where}.{path}") for path, v in values.items()]


def _bind_field(path: str, value: Value, message: Descriptor, reader: Reader, where: str) -> _Field:
    steps, field = _resolve_path(path, message, where)
    if value.value is not None:
        made = parse_constant(value, field, where)
        return _Field(path, steps, None, str, made)
    listed = field.is_repeated
    if listed and value.split is None:
        raise MappingError(f"{where}: '{field.name}' holds many values; split must say the mark")
    if value.split is not None and not (listed and value.split):
        raise MappingError(f"{where}: '{field.name}' holds one value and cannot be split")
    read, convert = reader.read(value, where), make_converter(field, value, where)
    return _Field(path, steps, read, convert, None, value.split)


def _resolve_path(
    path: str, message: Descriptor, where: str
) -> tuple[tuple[str, ...], FieldDescriptor]:
    """The JSON names on the way to a field, and the field; for a map, the field of its values."""
    names = path.split(".")
    steps: list[str] = []
    for at, name in enumerate(names):
        field = message.fields_by_name.get(name)
        if field is None:
            raise MappingError(
                f"{where}: {message.name} has no field '{name}'; "
                f"it has {', '.join(message.fields_by_name)}"
            )
        if field_options(field).output_only:
            raise MappingError(f"{where}: '{name}' is written by the hub alone")
        steps.append(field.json_name)
        rest = names[at + 1 :]
        if _is_map(field) and rest:
            return (*steps, ".".join(rest)), field.message_type.fields_by_name["value"]
        if not rest:
            return tuple(steps), field
        if _is_scalar(field) or field.is_repeated:
            raise MappingError(f"{where}: '{name}' has no fields")
        message = field.message_type
    raise AssertionError("a path has at least one name")


def _fill_record(
    record: dict[str, Any], fields: list[_Field], line: int, row: Row, table: Table
) -> Iterator[BadRow]:
    for field in fields:
        try:
            field.put(row, record)
        except BadValue as error:
            yield BadRow(table.path.name, line, field.path, str(error))


def _fill_children(
    record: dict[str, Any],
    field: FieldDescriptor,
    fields: list[_Field],
    rows: ChildRows,
    key: str | None,
) -> Iterator[BadRow]:
    elements: list[dict[str, Any]] = []
    for line, row in rows.of(key):
        element: dict[str, Any] = {}
        for bad in _fill_record(element, fields, line, row, rows.table):
            yield BadRow(bad.file, bad.line, f"{field.name}.{bad.field}", bad.reason)
        elements.append(element)
    if elements:
        record[field.json_name] = elements


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def _is_scalar(field: FieldDescriptor) -> bool:
    message = field.message_type
    return message is None or message.full_name == _TIMESTAMP or is_struct(field)
