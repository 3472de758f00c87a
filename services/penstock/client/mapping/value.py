"""One value: from the row of a source file to the text, and from the text to proto JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from google.protobuf.descriptor import FieldDescriptor as Kinds

from penstock.client.mapping.errors import BadValue, MappingError
from penstock.client.mapping.plan import Value
from penstock.client.mapping.table import Row, Table
from penstock.client.record import is_exact, is_struct
from penstock.client.stubs import FieldDescriptor, enum_labels, field_options

#: From a row to the text of a value, None for NULL. Raises BadValue.
Read = Callable[[Row], str | None]
#: From a text to a value of proto JSON. Raises BadValue.
Convert = Callable[[str], Any]
#: The rows of the lookups by name: the table, and its rows by key.
Lookups = Mapping[str, tuple[Table, Mapping[str, Row]]]

_TIMESTAMP = "google.protobuf.Timestamp"
_INTEGERS = {
    Kinds.CPPTYPE_INT32: (-(2**31), 2**31 - 1),
    Kinds.CPPTYPE_UINT32: (0, 2**32 - 1),
    Kinds.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
    Kinds.CPPTYPE_UINT64: (0, 2**64 - 1),
}
_REALS = (Kinds.CPPTYPE_FLOAT, Kinds.CPPTYPE_DOUBLE)


class Reader:
    """Makes the ``Read`` of the values of one file. ``where`` names the place in the plan."""

    def __init__(self, table: Table, maps: Mapping[str, Mapping[str, Any]], lookups: Lookups):
        self.table = table
        self._maps = maps
        self._lookups = lookups
        self.used: set[str] = set()

    def read(self, value: Value, where: str) -> Read:
        """The ``Read`` of a value that is not constant. Raises MappingError."""
        if value.template is not None:
            return self._template(value, where)
        at = self.index(value.column or "", where)
        steps = [*self._steps(value, where)]
        nulls = frozenset(value.null_if)
        null, present = value.null, value.present

        def read(row: Row) -> str | None:
            text = row[at]
            if text in nulls:
                text = None
            for step in steps:
                if text is None:
                    break
                text = step(text)
            if text is None:
                return null
            return text if present is None else present

        return read

    def index(self, column: str, where: str) -> int:
        """The index of a column. Raises MappingError if the file has none of that name."""
        self.used.add(column)
        try:
            return self.table.index(column)
        except KeyError:
            raise MappingError(
                f"{where}: {self.table.path.name} has no column '{column}'; "
                f"it has {', '.join(self.table.header)}"
            ) from None

    def _steps(self, value: Value, where: str) -> list[Callable[[str], str | None]]:
        steps: list[Callable[[str], str | None]] = []
        if value.lookup is not None:
            steps.append(self._lookup(value.lookup, value.take or "", where))
        if value.pattern is not None:
            steps.append(_pattern_step(value.pattern, where))
        if value.map is not None:
            steps.append(self._map(value, where))
        return steps

    def _lookup(self, name: str, take: str, where: str) -> Callable[[str], str | None]:
        if name not in self._lookups:
            raise MappingError(f"{where}: there is no lookup '{name}'")
        table, rows = self._lookups[name]
        if take not in table.header:
            raise MappingError(f"{where}: {table.path.name} has no column '{take}'")
        at = table.index(take)

        def step(text: str) -> str | None:
            if text not in rows:
                raise BadValue(f"{table.path.name} has no row '{text}'")
            return rows[text][at]

        return step

    def _map(self, value: Value, where: str) -> Callable[[str], str]:
        assert value.map is not None
        if isinstance(value.map, str) and value.map not in self._maps:
            raise MappingError(f"{where}: there is no map '{value.map}'")
        given = self._maps[value.map] if isinstance(value.map, str) else value.map
        texts = {key: _constant_text(text, where) for key, text in given.items()}
        other = value.other

        def step(text: str) -> str:
            if text in texts:
                return texts[text]
            if other is None:
                raise BadValue(f"the map does not say what '{text}' becomes")
            return other

        return step

    def _template(self, value: Value, where: str) -> Read:
        templates = [value.template] if isinstance(value.template, str) else value.template or []
        parts = [self._part(template, where) for template in templates]
        separator = value.separator

        def read(row: Row) -> str | None:
            texts = [text for part in parts if (text := part(row)) is not None]
            return separator.join(texts) if texts else None

        return read

    def _part(self, template: str, where: str) -> Read:
        """The text of a template, NULL if one of its columns is NULL."""
        pieces = re.split(r"\{([^{}]*)\}", template)
        plain = pieces[::2]
        if any("{" in text or "}" in text for text in plain):
            raise MappingError(f"{where}: a brace in the template has no partner")
        columns = [self.index(column, where) for column in pieces[1::2]]

        def read(row: Row) -> str | None:
            texts = plain[:1]
            for at, text in zip(columns, plain[1:], strict=True):
                found = row[at]
                if found is None:
                    return None
                texts += (found, text)
            return "".join(texts)

        return read


def _pattern_step(pattern: str, where: str) -> Callable[[str], str | None]:
    try:
        compiled = re.compile(pattern, re.DOTALL)
    except re.error as error:
        raise MappingError(f"{where}.pattern: {error}") from None
    if compiled.groups < 1:
        raise MappingError(f"{where}.pattern must have a group: the part to take")

    def step(text: str) -> str | None:
        match = compiled.fullmatch(text)
        return match[1] if match else None

    return step


def parse_constant(value: Value, field: FieldDescriptor, where: str) -> Any:
    """The proto JSON of a constant. Raises MappingError if the field cannot hold it."""
    convert = make_converter(field, Value(), where)
    try:
        if isinstance(value.value, list):
            if not field.is_repeated:
                raise MappingError(f"{where}: '{field.name}' holds one value, not a list")
            return [convert(_constant_text(item, where)) for item in value.value]
        one = convert(_constant_text(value.value, where))
    except BadValue as error:
        raise MappingError(f"{where}: {error}") from None
    return [one] if field.is_repeated and not _is_map_value(field) else one


def make_converter(field: FieldDescriptor, value: Value, where: str) -> Convert:
    """The function that makes a text one value of the field. Raises MappingError."""
    if value.timezone is not None and value.format is None:
        raise MappingError(f"{where}: timezone needs a format")
    if is_struct(field):
        return _parse_object
    if field.message_type is not None:
        if field.message_type.full_name != _TIMESTAMP:
            raise MappingError(f"{where}: '{field.name}' is not a single value")
        return _time_converter(value, where) if value.format else str
    if field_options(field).date and value.format:
        return _date_converter(value.format)
    if value.format:
        raise MappingError(f"{where}: format is for dates and times")
    if field.enum_type is not None:
        return _name_of(field)
    if field.cpp_type in _INTEGERS:
        return _integer_converter(field)
    if field.cpp_type in _REALS:
        return _parse_real
    return _parse_boolean if field.cpp_type == Kinds.CPPTYPE_BOOL else str


def _name_of(field: FieldDescriptor) -> Convert:
    labels = enum_labels(field.enum_type)
    names = {v.number: v.name for v in reversed(field.enum_type.values)}
    known: dict[str, str] = {label: names[number] for label, number in labels.items()}
    known |= {name: name for name in field.enum_type.values_by_name}

    def convert(text: str) -> str:
        try:
            return known[text]
        except KeyError:
            raise BadValue(f"'{text}' is not one of {', '.join(labels)}") from None

    return convert


def _integer_converter(field: FieldDescriptor) -> Convert:
    low, high = _INTEGERS[field.cpp_type]
    as_text = high > 2**32

    def convert(text: str) -> int | str:
        if not re.fullmatch(r"[+-]?[0-9]{1,20}", text) or not low <= int(text) <= high:
            raise BadValue(f"'{text}' is not a whole number from {low} to {high}")
        return str(int(text)) if as_text else int(text)

    return convert


def _parse_real(text: str) -> float | str:
    if text in ("NaN", "Infinity", "-Infinity"):
        return text
    try:
        number = float(text)
    except ValueError:
        raise BadValue(f"'{text}' is not a number") from None
    if number in (float("inf"), float("-inf")) or number != number:
        raise BadValue(f"'{text}' is not a number")
    return number


def _parse_object(text: str) -> dict[str, Any]:
    """The JSON object of a Struct; nothing in it is rounded or left out."""

    def pairs(members: list[tuple[str, Any]]) -> dict[str, Any]:
        if len(dict(members)) < len(members):
            raise BadValue("is JSON with a member twice")
        return dict(members)

    def number(digits: str) -> float:
        try:
            exact = is_exact(Decimal(digits))
        except ArithmeticError:  # an exponent beyond what a Decimal can have
            exact = False
        if not exact:
            raise BadValue(f"'{digits[:40]}' is a number that a Struct cannot hold")
        return float(digits)

    def constant(name: str) -> float:
        raise BadValue(f"'{name}' is not JSON")

    try:
        value = json.loads(
            text, object_pairs_hook=pairs, parse_float=number, parse_int=number,
            parse_constant=constant,
        )  # fmt: skip
    except (json.JSONDecodeError, RecursionError) as error:
        raise BadValue(f"is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise BadValue("is JSON, but no object")
    return value


def _parse_boolean(text: str) -> bool:
    if text not in ("true", "false"):
        raise BadValue(f"'{text}' is neither true nor false; a map can say which it is")
    return text == "true"


def _date_converter(form: str) -> Convert:
    def convert(text: str) -> str:
        return _parse_moment(text, form).date().isoformat()

    return convert


def _time_converter(value: Value, where: str) -> Convert:
    form = value.format or ""
    try:
        zone = ZoneInfo(value.timezone) if value.timezone else UTC
    except (ZoneInfoNotFoundError, ValueError):
        raise MappingError(f"{where}: there is no time zone '{value.timezone}'") from None

    def convert(text: str) -> str:
        time = _parse_moment(text, form)
        if time.tzinfo is None:
            time = time.replace(tzinfo=zone)
        return time.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")

    return convert


def _parse_moment(text: str, form: str) -> datetime:
    try:
        return datetime.strptime(text, form)
    except ValueError:
        raise BadValue(f"'{text}' is not written as {form}") from None


def _constant_text(value: Any, where: str) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    raise MappingError(f"{where}: a constant must be a text, a number, true or false")


def _is_map_value(field: FieldDescriptor) -> bool:
    holder = field.containing_type
    return holder is not None and holder.GetOptions().map_entry
