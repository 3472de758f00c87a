"""Single values: text and proto JSON to canonical values and back, one closure per field.

A closure is made once per column and called once per value, so it handles the usual case first and
looks for a reason to refuse only when that fails.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
import struct
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from penstockd.catalog.model import Field, Kind
from penstockd.floats import ODD_FLOATS, format_float, keeps_number, settle_float

Parser = Callable[[Any], Any]

#: Bytes of a text, or of bytes, in a field that has an index.
MAX_INDEXED_BYTES = 2000


class ValueRefused(ValueError):
    """A value that is not allowed in its field; ``reason`` completes the sentence "the value …".

    ``path`` leads to the wrong part of a composed value, such as ("[0]", ".name").
    """

    def __init__(self, problem: str, path: tuple[str, ...] = ()) -> None:
        self.problem, self.path = problem, path
        self.reason = f"at {_join_path(path)}: {problem}" if path else problem
        super().__init__(self.reason)

    def within(self, part: str) -> ValueRefused:
        """The same error for a value that contains this one as ``part``."""
        return ValueRefused(self.problem, (part, *self.path))


def _join_path(path: tuple[str, ...]) -> str:
    first, *rest = path
    return first + "".join(part if part[0] in ".[" else f": {part}" for part in rest)


_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_DECIMAL = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")
_FLOAT = re.compile(r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
_TIMESTAMP = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ](?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]"
    # PostgreSQL writes the offset as +00, and polars as +0000.
    r"(?:\.[0-9]+)?(?:Z|[+-](?:[01][0-9]|2[0-3])(?::?[0-5][0-9])?)"
)
#: Digits after the sixth of a fraction that are not all zeros.
_EXCESS = re.compile(r"\.[0-9]{6}0*[1-9]")
_BASE64 = str.maketrans("-_", "+/")
_WHOLE = {
    Kind.INT32: (-(2**31), 2**31 - 1),
    Kind.INT64: (-(2**63), 2**63 - 1),
    Kind.UINT32: (0, 2**32 - 1),
    Kind.UINT64: (0, 2**64 - 1),
}
#: The store's driver reads these two as minus infinity and infinity.
_FIRST_TIME, _LAST_TIME = datetime.min.replace(tzinfo=UTC), datetime.max.replace(tzinfo=UTC)


def parse_string(text: str) -> str:
    """The text, if every format and the store can hold it; else raises ValueRefused."""
    if text.isprintable():
        return text
    if found := _FORBIDDEN.search(text):
        code = ord(found[0])
        what = "a lone surrogate" if 0xD800 <= code < 0xE000 else "the forbidden character"
        raise ValueRefused(f"holds {what} U+{code:04X} at position {found.start() + 1}")
    return text


def text_parser(field: Field, times: Parser | None = None) -> Parser:
    """A parser of the text form, which raises ValueRefused. Not for LIST and MAP.

    ``times`` reads a TIMESTAMP in place of the usual parser, which refuses times without a zone.
    """
    match field.kind:
        case Kind.STRING:
            if field.indexed or field.unique:
                return _index_path
            return _check_key if field.in_key else parse_string
        case Kind.ENUM:
            return _enum_parser(field)
        case Kind.BOOL:
            return _parse_bool
        case Kind.INT32 | Kind.INT64 | Kind.UINT32 | Kind.UINT64:
            return _whole_parser(field.kind)
        case Kind.FLOAT | Kind.DOUBLE:
            return _parse_single if field.kind is Kind.FLOAT else _parse_double
        case Kind.BYTES:
            return _indexed_bytes if field.indexed or field.unique else _parse_bytes
        case Kind.DECIMAL:
            return _decimal_parser(field)
        case Kind.DATE:
            return _parse_date
        case Kind.TIMESTAMP:
            return times or parse_timestamp
    raise AssertionError(field.kind)


def json_parser(field: Field, times: Parser | None = None) -> Parser:
    """A parser of proto JSON whose fractional numbers are Decimal. It raises ValueRefused.

    ``times`` is as in ``text_parser``.
    """
    kind, parse = field.kind, text_parser(field, times)
    if kind is Kind.BOOL:
        return _json_bool
    if kind is Kind.STRING and parse is parse_string:
        return _json_string
    if kind in _WHOLE:
        low, high = _WHOLE[kind]

        def whole(value: Any) -> int:
            if type(value) is int:
                if low <= value <= high:
                    return value
                raise _out_of_range(kind)
            if type(value) is str:
                return parse(value)  # type: ignore[no-any-return]
            raise _wrong_type("a whole number", value)

        return whole
    if kind in (Kind.FLOAT, Kind.DOUBLE):
        return lambda value: _json_float(value, parse)
    if kind is Kind.DECIMAL:
        return lambda value: _json_decimal(value, parse)
    if kind is Kind.ENUM:
        return lambda value: parse(str(value) if type(value) is int else _check_string(value))
    return lambda value: parse(value if type(value) is str else _check_string(value))


def make_checker(field: Field, times: Parser | None = None) -> Parser:
    """A checker of values that are canonical already, or come from a protobuf message.

    There a decimal or date that was never set is "": the result is 0, or None. A time that no
    datetime holds is a text, which ``times`` reads (see ``text_parser``).
    """
    parse = text_parser(field, times)
    if field.kind in (Kind.DECIMAL, Kind.DATE) and not field.presence:
        given = parse
        unset = Decimal(0) if field.kind is Kind.DECIMAL else None

        def parse(v: Any) -> Any:
            return unset if v == "" else given(v)

    kinds: dict[Kind, Parser] = {
        Kind.BOOL: lambda v: v,
        Kind.BYTES: _bounded_bytes if field.indexed or field.unique else lambda v: v,
        Kind.DOUBLE: settle_float,
        Kind.FLOAT: settle_float,
        Kind.DECIMAL: lambda v: parse(format(v, "f") if isinstance(v, Decimal) else v),
        Kind.DATE: lambda v: v if isinstance(v, date) else parse(v),
        Kind.TIMESTAMP: lambda v: convert_utc(v) if isinstance(v, datetime) else parse(v),
        Kind.ENUM: lambda v: parse(str(v)),
    }
    return kinds.get(field.kind) or json_parser(field)


def to_text(field: Field, value: Any) -> str:
    """The one text form of a value that is not None; what every format prints."""
    match field.kind:
        case Kind.BOOL:
            return "true" if value else "false"
        case Kind.FLOAT:
            return format_float(value, single=True)
        case Kind.DOUBLE:
            return format_float(value, single=False)
        case Kind.BYTES:
            return base64.b64encode(value).decode()
        case Kind.DECIMAL:
            return format(value, "f")
        case Kind.DATE:
            return str(value.isoformat())
        case Kind.TIMESTAMP:
            return timestamp_text(value)
    return str(value)


def to_json(field: Field, value: Any) -> Any:
    """The proto JSON form of a value that is not None."""
    if field.kind in (Kind.BOOL, Kind.INT32, Kind.UINT32):
        return value
    if field.kind in (Kind.FLOAT, Kind.DOUBLE) and math.isfinite(value):
        return float(to_text(field, value))
    return to_text(field, value)


def timestamp_text(value: datetime) -> str:
    """RFC 3339 in UTC with six digits and Z."""
    return value.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"


def type_name(value: Any) -> str:
    """JSON's name for the type of a parsed value."""
    for kinds, name in (
        (type(None), "null"), (bool, "a boolean"), ((int, float, Decimal), "a number"),
        (str, "a string"), (list, "an array"), (dict, "an object"),
    ):  # fmt: skip
        if isinstance(value, kinds):
            return name
    return f"a {type(value).__name__}"


def _index_path(text: str) -> str:
    if len(text) > MAX_INDEXED_BYTES or len(text.encode()) > MAX_INDEXED_BYTES:
        raise ValueRefused(f"is longer than {MAX_INDEXED_BYTES} bytes, the most of an index")
    return parse_string(text)


def _check_key(text: str) -> str:
    if text:
        return parse_string(text)
    raise ValueRefused("must not be empty")


def _wrong_type(wanted: str, value: Any) -> ValueRefused:
    if isinstance(value, float | Decimal):
        return ValueRefused(f"must be {wanted}, not {str(value)[:40]}")
    return ValueRefused(f"must be {wanted}, not {type_name(value)}")


def _out_of_range(kind: Kind) -> ValueRefused:
    low, high = _WHOLE[kind]
    return ValueRefused(f"is out of range of {kind.name.lower()} ({low} to {high})")


def _quote_text(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:40] + "…")


def _check_string(value: Any) -> str:
    if isinstance(value, str):
        return value
    raise _wrong_type("a string", value)


def _enum_parser(field: Field) -> Parser:
    values = field.enum_values or {}
    known: dict[str, str] = {}
    for name, number in values.items():
        known.setdefault(str(number), name)
    for name, number in (field.enum_names or {}).items():
        known[name] = known[str(number)]
    known |= {name: name for name in values}

    def parse(text: str) -> str:
        try:
            return known[text]
        except KeyError:
            names = ", ".join(values)
            raise ValueRefused(f"is {_quote_text(text)}, which is not one of {names}") from None

    return parse


def _parse_bool(text: str) -> bool:
    if text == "true":
        return True
    if text == "false":
        return False
    lower = text.lower()
    if lower in ("true", "false", "t", "f"):  # PostgreSQL writes t and f
        return lower[0] == "t"
    raise ValueRefused(f"is {_quote_text(text)}, not true or false")


def _json_string(value: Any) -> str:
    if type(value) is str and value.isprintable():
        return value
    return parse_string(_check_string(value))


def _json_bool(value: Any) -> bool:
    if value is True or value is False:
        return bool(value)
    raise _wrong_type("true or false", value)


def _whole_parser(kind: Kind) -> Parser:
    low, high = _WHOLE[kind]

    def parse(text: str) -> int:
        digits = text[1:] if text[:1] == "-" else text
        if not (digits.isascii() and digits.isdigit()):
            raise ValueRefused(f"is {_quote_text(text)}, not a whole number")
        if len(digits) > 20:  # int() itself refuses thousands of digits
            digits = digits.lstrip("0") or "0"
            if len(digits) > 20:
                raise _out_of_range(kind)
        value = -int(digits) if text[:1] == "-" else int(digits)
        if low <= value <= high:
            return value
        raise _out_of_range(kind)

    return parse


def _parse_double(text: str) -> float:
    if text in ODD_FLOATS:
        return ODD_FLOATS[text]
    if not _FLOAT.fullmatch(text):
        raise ValueRefused(f"is {_quote_text(text)}, not a number")
    value = float(text)
    if math.isinf(value):
        raise ValueRefused("is out of range of double")
    return _check_kept(text, value, Kind.DOUBLE)


def _parse_single(text: str) -> float:
    value = _to_single(_parse_double(text))
    return value if text in ODD_FLOATS else _check_kept(text, value, Kind.FLOAT)


def _check_kept(text: str, value: float, kind: Kind) -> float:
    """The value that is stored for a text. Raises ValueRefused if it is another number."""
    if keeps_number(text, value, single=kind is Kind.FLOAT):
        return settle_float(value)
    kept = format_float(value, single=kind is Kind.FLOAT)
    raise ValueRefused(f"is {_quote_text(text)}, of which a {kind.name.lower()} would keep {kept}")


def _to_single(value: float) -> float:
    try:
        return settle_float(struct.unpack("<f", struct.pack("<f", value))[0])
    except OverflowError:
        raise ValueRefused("is out of range of float") from None


def _json_float(value: Any, parse: Parser) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal | str):
        raise _wrong_type("a number", value)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueRefused("is out of range of double")
    return parse(value if isinstance(value, str) else str(value))  # type: ignore[no-any-return]


def _parse_bytes(text: str) -> bytes:
    plain = text.rstrip("=").translate(_BASE64)
    try:
        if len(text) - len(plain) > 2 or not plain.isascii():
            raise binascii.Error
        data = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except binascii.Error:
        raise ValueRefused("is not base64") from None
    rest = len(data) % 3
    if rest and not plain.endswith(base64.b64encode(data[-rest:]).decode().rstrip("=")):
        raise ValueRefused("is base64 with bits after its last byte that are not 0")
    return data


def _indexed_bytes(text: str) -> bytes:
    return _bounded_bytes(_parse_bytes(text))


def _bounded_bytes(value: bytes) -> bytes:
    if len(value) > MAX_INDEXED_BYTES:
        raise ValueRefused(f"is longer than {MAX_INDEXED_BYTES} bytes, the most of an index")
    return value


def _decimal_parser(field: Field) -> Parser:
    precision, scale = field.precision or 38, field.scale
    whole = precision - scale  # as in SQL, and in the types of Parquet and Arrow
    usual = re.compile(rf"[0-9]{{1,{max(whole, 1)}}}\.[0-9]{{1,{max(scale, 1)}}}")

    def parse(text: str) -> Decimal:
        if scale and precision > scale and usual.fullmatch(text):
            return Decimal(text)
        if type(text) is not str or not _DECIMAL.fullmatch(text):
            raise ValueRefused(f"is {_quote_text(str(text))}, not a decimal number")
        point = text.find(".")
        if point >= 0 and len(text) - point - 1 > scale:
            raise ValueRefused(f"has more than {scale} digits after the point")
        if len(text) > whole:
            before = text[:point] if point >= 0 else text
            if len(before.lstrip("-0")) > whole:
                raise ValueRefused(f"has more than {whole} digits before the point")
        value = Decimal(text)
        return value if value else abs(value)  # there is no -0

    return parse


def _json_decimal(value: Any, parse: Parser) -> Decimal:
    if type(value) is str:
        return parse(value)  # type: ignore[no-any-return]
    if type(value) is int or isinstance(value, Decimal):
        if isinstance(value, Decimal) and not -99 < value.adjusted() < 99:
            raise ValueRefused("is out of range of the field's digits")
        if type(value) is int and value.bit_length() > 400:
            raise ValueRefused("is out of range of the field's digits")
        return parse(format(value, "f") if isinstance(value, Decimal) else str(value))  # type: ignore[no-any-return]
    if isinstance(value, float):
        raise ValueRefused("must be a string: a binary number is not exact")
    raise _wrong_type("a decimal number as a string", value)


def _parse_date(text: str) -> date:
    try:
        if len(text) == 10 and text[4] == text[7] == "-":
            return date.fromisoformat(text)
    except ValueError:
        pass
    raise ValueRefused(f"is {_quote_text(text)}, not a date such as 2024-02-29")


def parse_timestamp(text: str) -> datetime:
    """A time with its zone, in UTC and microseconds. Raises ValueRefused, also for a time that
    microseconds do not hold."""
    if _TIMESTAMP.fullmatch(text) or _TIMESTAMP.fullmatch(text := text.upper()):
        try:
            moment = datetime.fromisoformat(text)  # cuts off digits after the sixth
        except ValueError:
            pass
        else:
            check_precision(text)
            return convert_utc(moment)
    raise ValueRefused(f"is {_quote_text(text)}, not a time such as 2024-02-29T12:00:00Z")


def check_precision(text: str) -> None:
    """Raise ValueRefused for a time with more than six digits of a second that are not zeros."""
    if len(text) > len("2024-02-29T12:00:00.123456") and _EXCESS.search(text):
        raise ValueRefused(
            f"is {_quote_text(text)}, with more than six digits of a second, the most that are "
            "kept; time_precision=truncate of writes and imports cuts off the others"
        )


def convert_utc(value: datetime) -> datetime:
    """The same moment in UTC. Raises ValueRefused for one that the store cannot hold."""
    if value.tzinfo is not UTC:
        try:
            value = value.astimezone(UTC)
        except OverflowError:
            raise ValueRefused("is a time outside the years 1 to 9999") from None
    if _FIRST_TIME < value < _LAST_TIME:
        return value
    raise ValueRefused("is the first or the last time of all, which stands for infinity")
