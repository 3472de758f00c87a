"""NDJSON and JSON arrays as input: one proto JSON object per row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from penstockd.catalog.keys import join_key, parts_reader
from penstockd.catalog.leniency import Leniency
from penstockd.catalog.model import Dataset, Field
from penstockd.catalog.scalars import type_name
from penstockd.catalog.values import (
    Parser,
    ValueRefused,
    default_value,
    implicit_defaults,
    json_parser,
    load_json,
)
from penstockd.formats.options import FROM_FILE, ReadOptions
from penstockd.formats.reading import BadRow, Reader, RowBatch, check_receipt
from penstockd.native.abi import JsonFault, Status
from penstockd.native.errors import FormatError

_REASONS = {
    JsonFault.NOT_AN_ARRAY: "the file must hold one JSON array",
    JsonFault.NO_ELEMENT: "an element of the array is missing",
    JsonFault.UNBALANCED: "the array's elements must be separated by commas",
    JsonFault.AFTER_ARRAY: "something follows the end of the array",
    JsonFault.UNFINISHED: "the file ends before the end of the array",
}


class _FieldRefused(Exception):
    """The field at ``path`` refuses its value."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason


class NdjsonReader(Reader):
    """One object per line; blank lines are skipped. The last line may be an export's receipt.

    A member of a nested message may also be a member of the record, named by its path:
    ``{"address.city": "Riga"}``. A null there is as if it were not named at all.
    """

    _receipt_begins = b'{"@receipt":'

    def __init__(
        self, dataset: Dataset, fields: Sequence[Field], options: ReadOptions = FROM_FILE
    ) -> None:
        super().__init__(dataset, fields, options)
        self._object = _Object(self.offered, self.fields, self.leniency)
        keys = set(dataset.key_fields)
        reads_key = bool(keys) and keys <= set(self.fields)
        self._parts = parts_reader(dataset, self.fields) if reads_key else _find_no_key
        self._receipt = False

    def _take(self, data: bytes, final: bool) -> tuple[int, RowBatch | None]:
        size = len(data) if final else data.rfind(b"\n") + 1
        return size, self._batch(data[:size].split(b"\n"))

    def _batch(self, lines: list[bytes]) -> RowBatch:
        numbers, rows, bad = [], [], []
        width, fill = len(self.fields), self._object.fill
        for line in lines:
            if not line or line.isspace():
                continue
            if self._receipt:
                raise FormatError("something follows the receipt")
            if line.startswith(self._receipt_begins):
                self._receipt = True
                check_receipt(line.rstrip()[len(self._receipt_begins) : -1], self.rows)
                continue
            self.rows += 1
            row: list[Any] = [None] * width
            try:
                fill(load_json(line), row)
            except ValueRefused as refused:
                bad.append(BadRow(self.rows, "", refused.reason))
            except _FieldRefused as refused:
                parts = self._parts(row)
                key = "" if None in parts else join_key(parts)
                bad.append(BadRow(self.rows, refused.path, refused.reason, key))
            else:
                numbers.append(self.rows)
                rows.append(row)
        return RowBatch(numbers, rows, bad)


def _find_no_key(row: Sequence[Any]) -> tuple[None]:
    """No key: for files whose columns are not the fields of the key."""
    return (None,)


class JsonReader(NdjsonReader):
    """One array of objects, however it is laid out."""

    _receipt_begins = b"\n"  # never matches: arrays have no receipt
    _state = 0  # see split.c

    def _take(self, data: bytes, final: bool) -> tuple[int, RowBatch | None]:
        taken = self._kernel.split_json(data, final, self._state)
        if taken.status == Status.MALFORMED:
            row = self.rows + taken.rows + 1
            truncated = taken.detail == JsonFault.UNFINISHED
            raise FormatError(_REASONS[JsonFault(taken.detail)], row=row, truncated=truncated)
        self._state = taken.detail
        return taken.consumed, self._batch(taken.output.split(b"\n"))


class _Object:
    """Maps the members of a message at one level to places in a row."""

    def __init__(
        self,
        offered: Sequence[Field],
        fields: Sequence[Field],
        leniency: Leniency,
        depth: int = 0,
    ) -> None:
        self._leniency = leniency
        self._path = "".join(f"{step}." for step in offered[0].steps[:depth]) if offered else ""
        self._places: dict[str, tuple[int, Parser, str]] = {}
        self._nested: dict[str, _Object] = {}
        #: By each of its names, both names of a message.
        self._aliases: dict[str, tuple[str, str]] = {}
        self._passed_over: set[str] = set()
        self._required: list[tuple[int, str]] = []
        self._defaults: list[tuple[int, Any]] = []
        below: dict[tuple[str, str], list[Field]] = {}
        implicit = implicit_defaults(fields)
        for field in offered:
            names = field.json_steps[depth], field.steps[depth]
            if len(field.steps) > depth + 1:
                below.setdefault(names, []).append(field)
            elif field.output_only:
                self._passed_over.update(names)
            else:
                place = fields.index(field)
                self._places |= dict.fromkeys(
                    names, (place, json_parser(field, leniency), field.path)
                )
                if place in implicit:
                    self._defaults.append((place, implicit[place]))
                elif not field.nullable:
                    self._must_be(place, field)
        for names, members in below.items():
            nested = _Object(members, fields, leniency, depth + 1)
            self._nested |= dict.fromkeys(names, nested)
            self._aliases |= {names[0]: names, names[1]: names}

    def fill(self, value: Any, row: list[Any]) -> None:
        """Put the values of members into ``row``; raises _FieldRefused and ValueRefused."""
        if type(value) is not dict:
            raise ValueRefused(f"must be an object, not {type_name(value)}")
        if self._nested and any("." in name for name in value):
            value = self._unflatten(value)
        places = self._places
        for name, v in value.items():
            if name not in places:
                self._other(name, v, row)
            elif v is not None:
                i, parse, path = places[name]
                if row[i] is not None:
                    raise _FieldRefused(path, "is given twice, by both of its names")
                try:
                    row[i] = parse(v)
                except ValueRefused as refused:
                    raise _FieldRefused(path, refused.reason) from None
        for i, path in self._required:
            if row[i] is None:
                raise _FieldRefused(path, "is required")
        for i, absent in self._defaults:
            if row[i] is None:
                row[i] = absent.copy() if isinstance(absent, list | dict) else absent

    def _must_be(self, place: int, field: Field) -> None:
        try:
            self._defaults.append((place, default_value(field)))
        except ValueRefused:
            self._required.append((place, field.path))

    def _other(self, name: str, value: Any, row: list[Any]) -> None:
        if name in self._passed_over:
            return
        nested = self._nested.get(name)
        if nested is None and self._leniency.unknown is not None:
            self._leniency.unknown.note(self._path + name)
            return
        if nested is None:
            raise _FieldRefused((self._path + name)[:200], "is not a field of the dataset")
        if value is not None:
            try:
                nested.fill(value, row)
            except ValueRefused as refused:
                raise _FieldRefused(name, refused.reason) from None

    def _unflatten(self, value: dict[str, Any]) -> dict[str, Any]:
        """The same object with the members of messages, where they are named by paths, in objects.

        Raises _FieldRefused if a member is given both ways.
        """
        found = {name: v for name, v in value.items() if not self._leads_into(name)}
        made: dict[str, dict[str, Any]] = {}
        for name, v in value.items():
            if not self._leads_into(name):
                continue
            step, _, rest = name.partition(".")
            step = self._aliases[step][0]
            if any(alias in value for alias in self._aliases[step]):
                reason = f"is given twice: the record has '{step}' as well"
                raise _FieldRefused(self._path + name, reason)
            members = made.setdefault(step, {})
            if members.get(rest) is not None and v is not None:
                raise _FieldRefused(self._path + name, "is given twice, by two of its names")
            members[rest] = v if v is not None else members.get(rest)
        # A message all of whose members are null is absent, as it is in a row of cells.
        return found | {s: m for s, m in made.items() if any(v is not None for v in m.values())}

    def _leads_into(self, name: str) -> bool:
        """Whether a member is named by a path into a message."""
        step, dot, _ = name.partition(".")
        return bool(dot) and step in self._nested
