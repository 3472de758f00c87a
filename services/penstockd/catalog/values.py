"""Values of a Field: from text and proto JSON to the canonical Python value, and back.

STRING str, ENUM str (the value's name), BOOL bool, whole numbers int, FLOAT and DOUBLE float, BYTES
bytes, DECIMAL Decimal with its digits, DATE date, TIMESTAMP aware datetime in UTC, LIST and MAP
canonical proto JSON data (``elements``), STRUCT canonical data (``structs``), None where the field
is nullable. A ``*_parser`` is made once per column and called once per value. They raise
ValueRefused, which gives the reason.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal
from typing import Any

import orjson
from google.protobuf.descriptor import Descriptor

from penstockd.catalog import scalars
from penstockd.catalog.elements import default_value, repeated_parser
from penstockd.catalog.leniency import STRICT, Leniency
from penstockd.catalog.model import VALUE_MESSAGES, Dataset, Field, Kind
from penstockd.catalog.scalars import Parser, ValueRefused, timestamp_text
from penstockd.catalog.structs import parse_struct

__all__ = [
    "Parser",
    "ValueRefused",
    "check_value",
    "default_value",
    "from_json",
    "from_text",
    "implicit_defaults",
    "json_parser",
    "load_json",
    "make_completer",
    "text_parser",
    "timestamp_text",
    "to_json",
    "to_text",
    "value_checker",
]


def text_parser(field: Field, leniency: Leniency = STRICT) -> Callable[[str], Any]:
    """Text form -> canonical value; the closure raises ValueRefused."""
    if field.is_json:
        parse = json_parser(field, leniency)
        return lambda text: parse(load_json(text))
    return scalars.text_parser(field, leniency.times)


def json_parser(field: Field, leniency: Leniency = STRICT) -> Parser:
    """Proto JSON as ``load_json`` gives it -> canonical value; the closure raises ValueRefused.

    The caller handles None: it stands for NULL, or for the default of a field that is not nullable.
    """
    if field.kind is Kind.STRUCT:
        return parse_struct
    if field.repeated:
        return repeated_parser(field, leniency)
    return scalars.json_parser(field, leniency.times)


def value_checker(field: Field, leniency: Leniency = STRICT) -> Parser:
    """Canonical values, and what a message holds in their place -> canonical value.

    A message holds decimals and dates as text, enum numbers, aware datetimes of any offset or texts
    of times, and what ``record.json_ready`` and ``structs.read_struct`` make of its repeated fields
    and Structs. The closure raises ValueRefused.
    """
    if field.is_json:
        return json_parser(field, leniency)
    return scalars.make_checker(field, leniency.times)


def from_text(field: Field, text: str) -> Any:
    """The value of one text. Raises ValueRefused if the field cannot hold it. For a whole column,
    create a ``text_parser`` once."""
    return text_parser(field)(text)


def from_json(field: Field, value: Any) -> Any:
    """The value of parsed proto JSON; null is None, or the default if None is not allowed."""
    if value is None:
        return None if field.nullable else default_value(field)
    return json_parser(field)(value)


def check_value(field: Field, value: Any) -> Any:
    """The canonical form of a value from a protobuf message, see ``value_checker``."""
    if value is None:
        return None if field.nullable else default_value(field)
    return value_checker(field)(value)


def to_text(field: Field, value: Any) -> str:
    """The text form of a canonical value, the same in every format; "" for None."""
    if value is None:
        return ""
    return orjson.dumps(value).decode() if field.is_json else scalars.to_text(field, value)


def to_json(field: Field, value: Any) -> Any:
    """The proto JSON of a canonical value, ready for a JSON encoder; None for None."""
    return value if value is None or field.is_json else scalars.to_json(field, value)


def load_json(text: str | bytes) -> Any:
    """Parses JSON exactly: whole numbers as int, others as Decimal or, if that loses nothing,
    float.

    Raises ValueRefused for text that is not JSON, for an object with the same member twice (parsers
    silently keep one), for a lone surrogate and for nesting beyond some 1,000 levels.
    """
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise ValueRefused(f"is not JSON: {error}") from None
    data = text.encode() if isinstance(text, str) else text
    try:
        members = _count_members(value)
    except RecursionError:
        raise ValueRefused("is nested too deeply") from None
    spaced = b" :" in data or b"\t:" in data or b"\n:" in data or b"\r:" in data
    if members < 0 or spaced or data.count(b'":') != members:
        return _load_slowly(data)
    return value


def implicit_defaults(fields: Sequence[Field]) -> dict[int, Any]:
    """The default of each nested leaf that its message always has, by its place in ``fields``.

    These are the leaves without ``optional``; a date among them has no default and may be None.
    """
    return {
        i: default_value(replace(field, nullable=False))
        for i, field in enumerate(fields)
        if "." in field.path and not field.presence and field.kind is not Kind.DATE
    }


def make_completer(dataset: Dataset, fields: Sequence[Field]) -> Callable[[list[Any]], None]:
    """A function that completes a row of ``fields`` with the required values of present nested
    messages.

    A message is present if any of its leaves is not None; then leaves without ``optional`` take
    their default, as they do in protobuf.
    """
    defaults = implicit_defaults(fields)
    groups: list[tuple[list[int], list[tuple[int, Any]]]] = []
    for prefix in _message_prefixes(dataset.message_type, ""):
        leaves = [i for i, f in enumerate(fields) if f.path.startswith(prefix)]
        own = [(i, defaults[i]) for i in leaves if i in defaults]
        direct = [(i, v) for i, v in own if "." not in fields[i].path.removeprefix(prefix)]
        if direct:
            groups.append((leaves, direct))

    def complete(row: list[Any]) -> None:
        for leaves, direct in groups:
            missing = [(i, v) for i, v in direct if row[i] is None]
            if missing and any(row[i] is not None for i in leaves):
                for i, value in missing:
                    row[i] = value.copy() if isinstance(value, list | dict) else value

    return complete


def _message_prefixes(message: Descriptor, prefix: str) -> list[str]:
    """The path prefixes of nested messages, innermost first."""
    found: list[str] = []
    for fd in message.fields:
        nested = fd.message_type
        if nested is None or fd.is_repeated or nested.full_name in VALUE_MESSAGES:
            continue
        path = f"{prefix}{fd.name}."
        found += [*_message_prefixes(nested, path), path]
    return found


def _count_members(value: Any) -> int:
    """The number of members of all objects in a value; negative if it contains a float."""
    if type(value) is dict:
        count, values = len(value), value.values()
    elif type(value) is list:
        count, values = 0, value  # type: ignore[assignment]
    else:
        return -(1 << 40) if type(value) is float else 0
    for v in values:
        if type(v) in (dict, list, float):
            count += _count_members(v)
    return count


def _load_slowly(data: bytes) -> Any:
    def pairs(members: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(members)
        if len(found) < len(members):
            seen: set[str] = set()
            for name, _ in members:
                if name in seen:
                    raise ValueRefused(f"has the member {name[:40]!r} twice")
                seen.add(name)
        return found

    try:
        return json.loads(data, parse_float=Decimal, object_pairs_hook=pairs)
    except RecursionError:
        raise ValueRefused("is nested too deeply") from None
    except ValueRefused:
        raise
    except ValueError as error:  # an integer of thousands of digits
        raise ValueRefused(f"is not JSON: {error}") from None
    except ArithmeticError:  # beyond what a Decimal can be
        raise ValueRefused("holds a number whose exponent is out of range") from None
