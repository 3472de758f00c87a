"""``google.protobuf.Struct``: a field that holds a JSON object with members of the writer's choice.

Canonical data: members in the order in which jsonb keeps them (by the length of their names in
bytes, then by these bytes), so that every surface prints them alike; members that are null stay.
Numbers are doubles: whole ones an int, others a float; zero has no sign. From 2^53 on, a double
may be a rounded integer: protobuf's libraries and the sidecar round without a word. So these
numbers are refused on every way in, however they are written.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any

import orjson

from penstockd.catalog.scalars import ValueRefused, parse_string, type_name
from penstockd.catalog.varint import delimit_bytes

#: Objects and lists within each other. Each takes up to three of the hundred messages that
#: protobuf's parsers accept within each other.
MAX_STRUCT_DEPTH = 24
#: Bytes of a Struct as JSON, with all digits of its numbers.
MAX_STRUCT_BYTES = 256 << 10
#: Bytes of a Struct as a message. Its values take more room there than as JSON.
MAX_STRUCT_WIRE_BYTES = 16 * MAX_STRUCT_BYTES

#: The largest number. The one after it may be a rounded integer.
_LARGEST = 2**53 - 1
_PLAIN_NAME = re.compile("[A-Za-z_][A-Za-z0-9_]*")
#: What a message holds in a Value without a kind, which no JSON stands for.
_NO_KIND = object()


def parse_struct(value: Any) -> dict[str, Any]:
    """Parsed JSON (see ``values.load_json``), or what ``read_struct`` returns -> canonical data.

    Raises ValueRefused, with the path of what it refuses: a number that no double holds exactly as
    it is written, a character that no format can carry, too many levels or bytes.
    """
    if type(value) is not dict:
        raise ValueRefused(f"must be an object, not {type_name(value)}")
    reading = _StructReading()
    data: dict[str, Any] = reading.read(value, 1)
    if len(orjson.dumps(data)) + reading.digits > MAX_STRUCT_BYTES:
        raise ValueRefused(f"is longer than {MAX_STRUCT_BYTES >> 10} KiB of JSON")
    return data


class _StructReading:
    """One Struct on its way in."""

    def __init__(self) -> None:
        #: How many digits numbers have beyond their shortest text.
        self.digits = 0

    def read(self, value: Any, depth: int) -> Any:
        kind = type(value)
        if kind is str:
            return parse_string(value)
        if value is None or kind is bool:
            return value
        if kind is int or kind is float or kind is Decimal:
            return self._number(value)
        if kind not in (dict, list):
            raise ValueRefused("holds a Value of no kind")
        if depth > MAX_STRUCT_DEPTH:
            raise ValueRefused(f"is nested deeper than {MAX_STRUCT_DEPTH} levels")
        if kind is list:
            return [self._at(f"[{i}]", v, depth) for i, v in enumerate(value)]
        found = {name: self._at(_name_step(name), v, depth) for name, v in value.items()}
        for name in found:
            parse_string(name)
        return {name: found[name] for name in sorted(found, key=order_of)}

    def _at(self, step: str, value: Any, depth: int) -> Any:
        try:
            return self.read(value, depth + 1)
        except ValueRefused as refused:
            raise refused.within(step) from None

    def _number(self, value: int | float | Decimal) -> int | float:
        if not -_LARGEST <= value <= _LARGEST:  # NaN, too
            shown = "NaN" if value != value else _shorten_number(value)
            raise ValueRefused(
                f"is {shown}; a Struct holds numbers up to {_LARGEST}: send it as a text"
            )
        if type(value) is int:
            return value
        number = float(value)
        shortest = Decimal(repr(number))
        if type(value) is Decimal and shortest != value:
            raise ValueRefused(
                f"is {_shorten_number(value)}, of which a Struct, whose numbers are doubles, would "
                f"keep {shortest}: send it as a text"
            )
        if number.is_integer():
            return int(number)
        self.digits += abs(shortest.adjusted())
        return number


def _shorten_number(value: int | float | Decimal) -> str:
    if type(value) is int and abs(value) >= 10**40:  # str() refuses thousands of digits
        return "an integer of more than forty digits"
    text = str(value)
    return text if len(text) <= 40 else f"{text[:40]}…"


def order_of(name: str) -> tuple[int, bytes]:
    """By what jsonb sorts the names of members."""
    encoded = name.encode(errors="surrogatepass")
    return len(encoded), encoded


def _name_step(name: str) -> str:
    return f".{name}" if len(name) <= 40 and _PLAIN_NAME.fullmatch(name) else f"[{name[:40]!r}]"


def is_same_struct(one: str, other: str) -> bool:
    """Whether two JSON texts of the store hold the same; 1 and true are not."""
    return _sort_members(one) == _sort_members(other)


def _sort_members(text: str) -> bytes:
    """A text that is the same for equal JSON texts of the store."""
    return orjson.dumps(orjson.loads(text), option=orjson.OPT_SORT_KEYS)


# --- messages ---


def read_struct(message: Any) -> dict[str, Any]:
    """What a message of type Struct holds, unchecked, with all numbers as floats."""
    return {name: _read_value(value) for name, value in message.fields.items()}


def _read_value(value: Any) -> Any:
    kind = value.WhichOneof("kind")
    match kind:
        case "struct_value":
            return read_struct(value.struct_value)
        case "list_value":
            return [_read_value(v) for v in value.list_value.values]
        case "null_value":
            return None
        case None:
            return _NO_KIND
    return getattr(value, kind)


def struct_wire(text: str) -> bytes:
    """The bytes of the message that holds a JSON text of the store. Raises TypeError if that is no
    object."""
    data = orjson.loads(text)
    if type(data) is not dict:
        raise TypeError("not an object")
    return _object_wire(data)


def members_wire(data: Mapping[str, Any]) -> bytes:
    """The bytes of a message with these members, in the given order."""
    return _object_wire(data, data)


def _object_wire(data: Mapping[str, Any], names: Iterable[str] = ()) -> bytes:
    parts = []
    for name in names or sorted(data, key=order_of):
        entry = delimit_bytes(b"\x0a", name.encode()) + delimit_bytes(
            b"\x12", _value_wire(data[name])
        )
        parts.append(delimit_bytes(b"\x0a", entry))
    return b"".join(parts)


def _value_wire(value: Any) -> bytes:
    if value is None:
        return b"\x08\0"
    if type(value) is str:
        return delimit_bytes(b"\x1a", value.encode())
    if type(value) is bool:
        return b"\x20\1" if value else b"\x20\0"
    if type(value) is dict:
        return delimit_bytes(b"\x2a", _object_wire(value))
    if type(value) is list:
        items = b"".join([delimit_bytes(b"\x0a", _value_wire(v)) for v in value])
        return delimit_bytes(b"\x32", items)
    return b"\x11" + struct.pack("<d", value)
