"""Random JSON for fields and messages of the model: good, nearly good, and damaged.

Numbers are texts (``Number``), so that they can be spelled in ways that no parser keeps.
"""

from __future__ import annotations

import base64
import functools
import json
import random
import re
from collections.abc import Callable, Sequence
from typing import Any

from google.protobuf import message_factory

from plain_records import (
    Descriptor,
    FieldDescriptor,
    Number,
    inner,
    is_map,
    kind_of,
    options_of,
    written,
)

#: The faults that are known: most are values that the hub takes, and shows as others. The draw, or
#: the check, leaves them out. Remove a name when its fault is cured.
KNOWN_FAULTS: frozenset[str] = frozenset()

#: Texts that something on the way might change.
TEXTS = [
    "", " ", "a", "O'Neill", '"', "\\", "\\u0041", "a,b;c", "<b>&amp;</b>", "{}", "null", "true",
    "0", "1e5", "é", "e\u0301", "日本語", "\u202eabc", "\ufeff", "\u2028",
    "\U0001f469\u200d\U0001f4bb", "\U0010fffd", "\ud7ff\ue000", "%00%2F%7E", "~", "a\nb\tc\r",
    "x" * 199, "NaN", "\U0001d7d9\U0001d7da", "ß" * 40,
]  # fmt: skip
#: Texts that no surface holds, as JSON escapes them.
FORBIDDEN = ["\\u0000", "\\u0001", "\\ud800", "\\udc00\\ud800", "\\uffff", "\\ufffe", "\\u000b"]
_WHOLE = [0, 1, -1, 7, 2**31 - 1, -(2**31), 2**32 - 1, 2**53, 2**53 + 1, 2**63 - 1, -(2**63)]
_WHOLE += [2**64 - 1, 10**18]
_ODD_WHOLE = ["5.0", "5e0", "5e-1", "5.5", "-0", "-0.0", "1e400", "1E2", "9007199254740993.0"]
_ODD_WHOLE += ["9" * 400, "12345678901234567890123"]
_FLOATS = ["0", "-0", "0.0", "1", "-1", "0.1", "1.5", "1e10", "1E+2", "2.5e-3", "123456.789"]
_FLOATS += ["1e-30", "3.4028235e38", "0.30000000000000004", "0.000", "-7.25"]
_DOUBLES = ["1.7976931348623157e308", "5e-324", "2.2250738585072014e-308", "1e22", "123456789.0"]
_DOUBLES += ["1" + "0" * 15, "9007199254740992", "0.1000000000000000055511151231257827"]
_DAYS = ["2024-02-29", "1970-01-01", "0001-01-01", "9999-12-31", "1999-12-31", "2026-11-30"]
_ODD_DAYS = ["2001-02-29", "2024-2-9", "20240229", "2024-W09-4", "2024-02-29T00:00:00Z", "", " "]
_ODD_DAYS += [
    "0000-01-01",
    "10000-01-01",
    "\uff12\uff10\uff12\uff14-02-29",
    "2024-13-01",
    "now",
    "29.02.2024",
]
_TIMES = ["2024-02-29T12:00:00Z", "1970-01-01T00:00:00.000001Z", "2024-06-30T23:59:59+02:00"]
_TIMES += ["2024-06-30t23:59:59.5z", "2024-06-30 23:59:59.123456-11:30", "1999-01-01T00:00:00+14"]
_TIMES += ["2024-02-29T12:00:00.120000000Z", "0001-01-02T00:00:00Z", "9999-12-30T23:59:59.999999Z"]
_ODD_TIMES = ["2024-02-29T12:00:60Z", "2024-02-29T24:00:00Z", "2024-02-29T12:00:00", "2024-02-29"]
_ODD_TIMES += ["2024-02-30T12:00:00Z", "9999-12-31T23:59:59-01:00", "0001-01-01T00:00:00+01:00"]
_ODD_TIMES += ["2024-02-29T12:00Z", "1709208000", "", "2024-02-29T12:00:00.1234567891Z"]
_FIELD_OPTIONS = "google.protobuf.FieldOptions"
_ADDRESSES = ["a@b.example", "first.last+tag@sub.example.com"]
_MATCHING = ["EUR", "JP", "en-GB", "DE", "USD", "A1", "abc", "0", ""]


def _fault(rng: random.Random, name: str, values: Sequence[str], among: Sequence[str]) -> str:
    """One of ``among`` or, rarely and unless the fault is known, of the values that show it."""
    shows = name not in KNOWN_FAULTS and rng.random() < 0.06
    return rng.choice(values if shows else among)


def rules_of(fd: FieldDescriptor) -> Any:
    """The model's rules for a field, as a message of type ``buf.validate.FieldRules``."""
    return _rules_of(fd.file.pool, fd)


@functools.cache
def _rules_of(pool: Any, fd: FieldDescriptor) -> Any:
    kind = message_factory.GetMessageClass(pool.FindMessageTypeByName(_FIELD_OPTIONS))
    options: Any = kind.FromString(fd.GetOptions().SerializeToString())
    return options.Extensions[pool.FindExtensionByName("buf.validate.field")]


def _fits(text: str, rules: Any) -> bool:
    given = rules.string
    if given.HasField("min_len") and len(text) < given.min_len:
        return False
    return not given.HasField("pattern") or re.fullmatch(given.pattern, text) is not None


def good_text(rng: random.Random, fd: FieldDescriptor) -> str:
    """A text that the model's rules allow."""
    rules = rules_of(fd)
    if rules.string.email:
        return rng.choice(_ADDRESSES)
    among = _MATCHING if rules.string.HasField("pattern") else TEXTS
    fitting = [text for text in among if _fits(text, rules)]
    return rng.choice(fitting) if fitting else "x" * rules.string.min_len


def good_value(rng: random.Random, fd: FieldDescriptor, depth: int = 0) -> Any:
    """JSON that a field takes."""
    if is_map(fd):
        kinds = fd.message_type.fields_by_name
        count = rng.choice((0, 1, 2, 3))
        return {
            _good_key(rng, kinds["key"]): good_one(rng, kinds["value"], depth) for _ in range(count)
        }
    if fd.is_repeated:
        return [good_one(rng, fd, depth) for _ in range(rng.choice((0, 1, 2, 3)))]
    return good_one(rng, fd, depth)


def _good_key(rng: random.Random, fd: FieldDescriptor) -> str:
    if kind_of(fd) == "string":
        return rng.choice(TEXTS)
    return str(rng.choice((0, 1, 7, 42, 2**31 - 1)))


def good_one(rng: random.Random, fd: FieldDescriptor, depth: int) -> Any:
    """JSON that a field, or an item of it, takes."""
    return _GOOD[kind_of(fd)](rng, fd, depth)


def _good_whole(rng: random.Random, fd: FieldDescriptor, depth: int) -> Any:
    bits = 32 if fd.cpp_type in (fd.CPPTYPE_INT32, fd.CPPTYPE_UINT32) else 64
    signed = fd.cpp_type in (fd.CPPTYPE_INT32, fd.CPPTYPE_INT64)
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    if rules_of(fd).WhichOneof("type"):
        low = max(low, 0)
    number = str(rng.choice([n for n in (*_WHOLE, rng.getrandbits(20)) if low <= n <= high]))
    return rng.choice((Number(number), number))


def _good_float(rng: random.Random, fd: FieldDescriptor, depth: int) -> Any:
    single = fd.cpp_type == fd.CPPTYPE_FLOAT
    among = _FLOATS if single else _FLOATS + _DOUBLES
    if rules_of(fd).WhichOneof("type"):
        among = ["0", "-1", "1", "0.25", "-0.5", "1e-3", "-0"]
    text = rng.choice(among)
    if not single:
        text = _fault(rng, "a number nearer to 0 than any double", ["1e-400", "-2e-324"], [text])
        text = _fault(rng, "a whole number that no double holds", ["9007199254740993"], [text])
    else:
        text = _fault(rng, "a whole number that no float holds", ["16777217"], [text])
    if not rules_of(fd).WhichOneof("type") and rng.random() < 0.1:
        return rng.choice(("NaN", "Infinity", "-Infinity"))
    return rng.choice((Number(text), text))


def _good_decimal(rng: random.Random, fd: FieldDescriptor, depth: int) -> Any:
    limits = options_of(fd).decimal
    scale, precision = limits.scale, limits.precision
    digits = str(rng.randrange(10 ** rng.choice((1, 3, precision - scale))))
    point = str(rng.randrange(10**scale)).rjust(scale, "0")[: rng.choice((1, scale))]
    text = digits + rng.choice(("", f".{point}" if point else ""))
    if not rules_of(fd).cel and rng.random() < 0.3:
        text = "-" + text
    return rng.choice((text, text, Number(text)))


def _good_enum(rng: random.Random, fd: FieldDescriptor, depth: int) -> Any:
    value = rng.choice(list(fd.enum_type.values))
    return rng.choice((value.name, value.name, Number(value.number)))


def _good_bytes(rng: random.Random, fd: FieldDescriptor, depth: int) -> Any:
    text = base64.b64encode(rng.randbytes(rng.choice((0, 1, 2, 3, 50)))).decode()
    spelled = [text, text.rstrip("="), text.replace("+", "-").replace("/", "_")]
    return _fault(rng, "spare bits in base64", ["QUI9", "QR==", "QUJ", "QUF"], spelled)


def _good_time(rng: random.Random, fd: FieldDescriptor, depth: int) -> Any:
    fine = ["2024-02-29T12:00:00.1234567Z", "2024-02-29T12:00:00.000000001Z"]
    return _fault(rng, "more than six digits of a second", fine, _TIMES)


def _good_struct(rng: random.Random, fd: FieldDescriptor, depth: int) -> Any:
    return {rng.choice(TEXTS): good_json(rng, 3) for _ in range(rng.choice((0, 1, 2, 3)))}


def good_json(rng: random.Random, depth: int) -> Any:
    """Any JSON that a Struct keeps."""
    if depth and rng.random() < 0.4:
        if rng.random() < 0.5:
            return [good_json(rng, depth - 1) for _ in range(rng.randrange(4))]
        return {rng.choice(TEXTS): good_json(rng, depth - 1) for _ in range(rng.randrange(4))}
    numbers = [Number(n) for n in ("0", "-0", "1.5", "1e3", "-7", "9007199254740991", "1e-7")]
    return rng.choice([None, True, False, rng.choice(TEXTS), *numbers])


def _good_message(rng: random.Random, fd: FieldDescriptor, depth: int) -> Any:
    return good_object(rng, fd.message_type, depth + 1)


_GOOD: dict[str, Callable[[random.Random, FieldDescriptor, int], Any]] = {
    "string": lambda rng, fd, depth: good_text(rng, fd),
    "bool": lambda rng, fd, depth: rng.random() < 0.5,
    "whole": _good_whole,
    "float": _good_float,
    "enum": _good_enum,
    "bytes": _good_bytes,
    "decimal": _good_decimal,
    "date": lambda rng, fd, depth: rng.choice(_DAYS),
    "time": _good_time,
    "struct": _good_struct,
    "message": _good_message,
}


def name_of(rng: random.Random, fd: FieldDescriptor) -> str:
    """One of the two names of a field, usually that of JSON."""
    return str(fd.name if rng.random() < 0.15 else fd.json_name)


def good_object(
    rng: random.Random, message: Descriptor, depth: int = 0, *, share: float = 0.5
) -> dict[str, Any]:
    """JSON for a message, with about a ``share`` of its fields, at most one of each oneof. What
    the rules require is there."""
    found: dict[str, Any] = {}
    taken = set[str]()
    fields = written(message)
    if len(fields) > 40:
        share *= 0.1
    for fd in fields:
        oneof = fd.containing_oneof
        several = oneof is not None and len(oneof.fields) > 1
        needed = rules_of(fd).required or rules_of(fd).string.min_len
        if options_of(fd).key or options_of(fd).HasField("reference") or options_of(fd).unique:
            continue
        if not needed and (depth > 3 or rng.random() > share or (several and oneof.name in taken)):
            continue
        if several:
            taken.add(oneof.name)
        if rng.random() < 0.08 and not needed:
            found[name_of(rng, fd)] = None
        else:
            found[name_of(rng, fd)] = good_value(rng, fd, depth)
    return found


# --- nearly good --------------------------------------------------------------------------------

_OTHERS: list[Any] = [None, True, False, Number("0"), Number("1.5"), "", "x", "true", [], {}]
_OTHERS += [[None], [[]], {"a": None}, {"": {}}, ["x"], [Number("1")], Number("1e999999999999")]


def odd_value(rng: random.Random, fd: FieldDescriptor) -> Any:
    """JSON that a field may refuse."""
    texts: dict[str, list[str]] = {
        "date": _ODD_DAYS,
        "time": _ODD_TIMES,
        "enum": ["person", "PERSN", "99", "-1", "", "KIND_UNSPECIFIED "],
        "bytes": ["=", "====", "a", "QQ=", "é", "QUJD\n", "Q Q=", "*"],
        "decimal": [
            "1e3",
            "1.",
            ".5",
            "+1",
            "1,5",
            "\u0661",
            " 1",
            "0x1",
            "1_0",
            "9" * 60,
            "1" * 5000,
        ],
    }
    kind = kind_of(fd)
    spelled: list[Any] = [*texts.get(kind, [])]
    if kind in ("whole", "float", "decimal"):
        numbers = [*_ODD_WHOLE, "1e-7"]
        if kind == "float":
            numbers = ["1e400", "-1e400", "1e39", "9" * 300]
        spelled += [Number(n) for n in numbers] + [
            *numbers,
            " 5",
            "+5",
            "0x10",
            "1_0",
            "\uff15",
            "five",
        ]
    return rng.choice([*_OTHERS, *spelled, *spelled])


def spoil(rng: random.Random, message: Descriptor, value: dict[str, Any]) -> None:
    """Add a fault, or two, to the JSON of a message."""
    for _ in range(rng.choice((1, 1, 1, 2))):
        fd = rng.choice([*written(message), *message.fields[-5:]])
        of = inner(fd)
        choice = rng.random()
        if choice < 0.12:
            value[rng.choice(["nmae", fd.json_name.upper(), "", "a.b", "__proto__", "ключ"])] = "x"
        elif choice < 0.2:
            value[fd.json_name] = value[fd.name] = good_value(rng, fd)
        elif of is not None and choice < 0.7:
            held = good_object(rng, of)
            spoil(rng, of, held)
            value[fd.json_name] = held
        elif (is_map(fd) or fd.is_repeated) and choice < 0.7:
            item = fd.message_type.fields_by_name["value"] if is_map(fd) else fd
            odd = odd_value(rng, item)
            value[fd.json_name] = {"k": odd} if is_map(fd) else [good_one(rng, fd, 3), odd]
        else:
            value[fd.json_name] = odd_value(rng, fd)


# --- text --------------------------------------------------------------------------------------


def dump(rng: random.Random, value: Any) -> str:
    """The JSON of a value, in one of its many layouts."""
    space = rng.choice(("", "", "", " ", "\n\t", "\r\n "))
    escape = rng.random() < 0.3
    return _dump(value, space, escape)


def _dump(value: Any, space: str, escape: bool) -> str:
    if isinstance(value, Number):
        return str(value)
    if isinstance(value, dict):
        inside = ("," + space).join(
            f"{json.dumps(name, ensure_ascii=escape)}{space}:{space}{_dump(item, space, escape)}"
            for name, item in value.items()
        )
        return "{" + space + inside + space + "}"
    if isinstance(value, list):
        return "[" + ("," + space).join(_dump(v, space, escape) for v in value) + space + "]"
    return json.dumps(value, ensure_ascii=escape)


def damage(rng: random.Random, text: str) -> bytes:
    """The text with a fault of JSON, or none that shows."""
    data = text.encode()
    at = rng.randrange(len(data) + 1)
    piece = rng.choice([b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"\x00", b"\xff", b" "])
    match rng.randrange(12):
        case 0:
            return data[:at]
        case 1:
            return data[:at] + piece + data[at:]
        case 2:
            return data[:at] + data[at + 1 :]
        case 3:
            return data + rng.choice([b" ", b"{}", b"]", b"\x00", b"// end", b"\n\n", b","])
        case 4:
            return rng.choice([b"\xef\xbb\xbf", b" ", b"\x00", b")]}',\n"]) + data
        case 5:
            return text.encode("utf-16")
        case 6:
            levels = rng.choice((30, 120, 1500, 20_000))
            opened, closed = rng.choice([("[", "]"), ('{"a":', "}")])
            deep = opened * levels + "1" + closed * levels
            return data[:-1] + b',"name":' + deep.encode() + b"}"
        case 7:
            return data[:-1] + b',"name":"a","name":"b"}'
        case 8:
            return data[:-1] + b',"name":"' + rng.choice(FORBIDDEN).encode() + b'"}'
        case 9:
            return (
                data[:-1] + b',"name":' + rng.choice([b"NaN", b"01", b"+1", b"1.", b"'x'"]) + b"}"
            )
        case 10:
            return data[:-1] + b",}"
    return rng.choice([b"", b" ", b"null", b"[]", b'"x"', b"0", b"{}", b"\x1f\x8b\x08", b"<a/>"])
