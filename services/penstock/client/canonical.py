"""The canonical form of records, and their digests, from messages and from JSON.

``penstock/hub/v1/digests.proto`` defines the form for any language; this is its Python version.
"""

from __future__ import annotations

import base64
import hashlib
import math
import struct
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from functools import cache
from json.encoder import encode_basestring as _quote
from typing import Any

from google.protobuf.message import Message

from penstock.client.record import read_struct
from penstock.client.stubs import Descriptor, FieldDescriptor, enum_labels, field_options

#: Fields that are not part of the form: they change when fields that are not shown change.
LEFT_OUT = frozenset({"update_time", "etag"})

_TIMESTAMP = "google.protobuf.Timestamp"
_STRUCT = "google.protobuf.Struct"
_EPOCH_DAYS = 719163
#: A value -> its text; None if the value leaves a field without presence unset.
_Print = Callable[[Any], str | None]


def format_canonical(record: Message) -> bytes:
    """The canonical form of a record as the hub sent it: the input of its digest."""
    return _make_form(record.DESCRIPTOR, True).of_message(record).encode()


def canonical_json(record: Mapping[str, Any], record_class: type[Message]) -> bytes:
    """The canonical form of a record in proto JSON, from REST, streams or a line of NDJSON."""
    return _make_form(record_class.DESCRIPTOR, True).of_json(record).encode()


def record_digest(record: Message) -> bytes:
    """The SHA-256 of a record's canonical form, 32 bytes."""
    return hashlib.sha256(format_canonical(record)).digest()


def range_digest(digests: Iterable[bytes]) -> str:
    """The digest of a range, in hexadecimal, from those of its records in order of their keys."""
    return hashlib.sha256(b"".join(digests)).hexdigest()


@cache
def _make_form(message: Descriptor, record: bool = False) -> _Form:
    return _Form(message, record)


class _Form:
    """How the records of one type are printed."""

    def __init__(self, message: Descriptor, record: bool) -> None:
        left_out = LEFT_OUT if record else frozenset()
        wanted = sorted(
            (fd for fd in message.fields if fd.name not in left_out), key=lambda fd: fd.json_name
        )
        self._fields = [
            (
                _quote(fd.json_name) + ":",
                fd.json_name,
                fd.name,
                fd.has_presence,
                *_make_printers(fd),
            )
            for fd in wanted
        ]

    def of_message(self, message: Any) -> str:
        """The form of a message."""
        parts = []
        for label, _, name, presence, print_, _ in self._fields:
            if not presence or message.HasField(name):
                text = print_(getattr(message, name))
                if text is not None:
                    parts.append(label + text)
        return "{" + ",".join(parts) + "}"

    def of_json(self, record: Mapping[str, Any]) -> str:
        """The form of proto JSON; null members count as absent."""
        parts = []
        for label, json_name, _, _, _, print_ in self._fields:
            value = record.get(json_name)
            if value is not None:
                text = print_(value)
                if text is not None:
                    parts.append(label + text)
        return "{" + ",".join(parts) + "}"


def _make_printers(fd: FieldDescriptor) -> tuple[_Print, _Print]:
    """How to print a field from a message and from JSON."""
    one, is_map = fd, False
    if fd.message_type is not None and fd.message_type.GetOptions().map_entry:
        one, is_map = fd.message_type.fields_by_name["value"], True
    given, read = _value_printers(one, field_options(fd).WhichOneof("encoding") == "decimal")
    if is_map:
        return _map_printer(given), _map_printer(read)
    if fd.is_repeated:
        return _list_printer(given), _list_printer(read)
    if fd.has_presence:
        return given, read
    return _omit_unset(fd, given), _omit_unset(fd, read)


def _value_printers(
    fd: FieldDescriptor, decimal: bool
) -> tuple[Callable[[Any], str], Callable[[Any], str]]:
    if fd.message_type is not None:
        if fd.message_type.full_name == _TIMESTAMP:
            return _print_moment, _moment_text
        if fd.message_type.full_name == _STRUCT:
            return (lambda v: _print_data(read_struct(v))), _print_data
        # Looked up at each call: messages may contain themselves.
        of = fd.message_type
        return (lambda v: _make_form(of).of_message(v)), (lambda v: _make_form(of).of_json(v))
    if fd.enum_type is not None:
        labels = reversed(enum_labels(fd.enum_type).items())
        names = {number: _quote(label) for label, number in labels}
        return names.__getitem__, _quote
    if decimal:
        return _print_decimal, _print_decimal
    match fd.cpp_type:
        case fd.CPPTYPE_STRING if fd.type == fd.TYPE_BYTES:
            return (lambda v: f'"{base64.b64encode(v).decode()}"'), _print_base64
        case fd.CPPTYPE_STRING:
            return _quote, _quote
        case fd.CPPTYPE_BOOL:
            return _print_bool, _print_bool
        case fd.CPPTYPE_INT64 | fd.CPPTYPE_UINT64:
            return (lambda v: f'"{v}"'), (lambda v: f'"{v}"')
        case fd.CPPTYPE_FLOAT:
            return (lambda v: _print_number(round_single(v))), _print_number
        case fd.CPPTYPE_DOUBLE:
            return _print_number, _print_number
    return str, lambda v: str(int(v))


def _omit_unset(fd: FieldDescriptor, print_: Callable[[Any], str]) -> _Print:
    """Omits the value that a field without presence has when it is unset."""
    nothing: tuple[Any, ...] = (0, "", b"", "0") if fd.cpp_type != fd.CPPTYPE_STRING else ("", b"")
    if fd.enum_type is not None:
        nothing = (0, *(label for label, n in enum_labels(fd.enum_type).items() if n == 0))
    return lambda v: None if v in nothing else print_(v)


def _list_printer(print_: Callable[[Any], str]) -> _Print:
    return lambda values: "[" + ",".join(map(print_, values)) + "]" if len(values) else None


def _map_printer(print_: Callable[[Any], str]) -> _Print:
    def text(values: Mapping[Any, Any]) -> str | None:
        if not len(values):
            return None
        named = {_print_key(k): v for k, v in values.items()}
        # RFC 8785 sorts by UTF-16 code units.
        names = sorted(named, key=lambda k: k.encode("utf-16-be"))
        return "{" + ",".join(f"{_quote(k)}:{print_(named[k])}" for k in names) + "}"

    return text


def _print_data(value: Any) -> str:
    """JSON data whose types are its own: members sorted, nothing left out."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return _print_bool(value)
    if isinstance(value, str):
        return _quote(value)
    if isinstance(value, Mapping):
        return _map_printer(_print_data)(value) or "{}"
    if isinstance(value, list):
        return _list_printer(_print_data)(value) or "[]"
    return _print_number(value)


def _print_key(key: Any) -> str:
    return ("true" if key else "false") if isinstance(key, bool) else str(key)


def _print_bool(value: bool) -> str:
    return "true" if value else "false"


def _print_base64(text: str) -> str:
    return f'"{text}"'


def _print_decimal(text: str) -> str:
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return f'"{text}"'


def _print_moment(stamp: Any) -> str:
    days, seconds = divmod(stamp.seconds, 86400)
    return f'"{_format_date(days)}T{_format_clock(seconds)}.{stamp.nanos // 1000:06}Z"'


def _format_date(days: int) -> str:
    import datetime as dt

    return dt.date.fromordinal(days + _EPOCH_DAYS).isoformat()


def _format_clock(seconds: int) -> str:
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def _moment_text(text: str) -> str:
    """RFC 3339 in UTC, with any number of digits in the fraction."""
    whole, _, fraction = text.removesuffix("Z").partition(".")
    return f'"{whole}.{fraction[:6]:0<6}Z"'


def round_single(value: float) -> float:
    """The number with the fewest digits that is the same in 32 bits."""
    if not math.isfinite(value):
        return value
    for digits in range(1, 10):
        shorter = float(f"{value:.{digits}g}")
        try:
            same = struct.pack("<f", shorter) == struct.pack("<f", value)
        except OverflowError:  # the largest, rounded up
            same = False
        if same:
            return shorter
    return value


def _print_number(value: Any) -> str:
    """A number as ECMAScript prints it."""
    if isinstance(value, str):
        return _quote(value)  # NaN and the infinities
    value = float(value)
    if not math.isfinite(value):
        return _quote("NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity")
    if value == 0:
        return "0"
    sign, figures, exponent = Decimal(repr(value)).normalize().as_tuple()
    digits, minus = "".join(map(str, figures)), "-" if sign else ""
    assert isinstance(exponent, int), "a finite number"
    point = len(digits) + exponent
    if -6 < point <= 21:
        if point <= 0:
            return f"{minus}0.{'0' * -point}{digits}"
        if point >= len(digits):
            return minus + digits.ljust(point, "0")
        return f"{minus}{digits[:point]}.{digits[point:]}"
    rest = f".{digits[1:]}" if len(digits) > 1 else ""
    return f"{minus}{digits[0]}{rest}e{'+' if point > 0 else '-'}{abs(point - 1)}"
