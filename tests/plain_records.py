"""What a record must hold after JSON was written to it: a plain reading that shares no code with
the hub.

It follows the descriptors of the model and the README. A value has one *meaning*, whichever way it
is spelled, and a record is a tree of meanings: by proto name, with a nested message as a dict, or
None if it is unset. ``Unfit`` says of JSON that the hub accepted that no reading of it is exact.
"""

from __future__ import annotations

import base64
import binascii
import copy
import json
import math
import re
import struct
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from penstock.options.v1 import options_pb2

# protobuf's type stubs have two incompatible classes of descriptors.
Descriptor = Any
FieldDescriptor = Any
Tree = dict[str, Any]

_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_TIME = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?([Zz]|[+-]\d\d(?::?\d\d)?)"
)
_ODD = ("NaN", "Infinity", "-Infinity")
#: How the hub writes values that are texts in its JSON, by the meaning's kind.
_FORMS = {
    "whole": re.compile(r"-?(0|[1-9][0-9]*)"),
    "decimal": re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?"),
    "time": re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z"),
    "date": re.compile(r"\d{4}-\d\d-\d\d"),
    "bytes": re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?"),
}


class Unfit(AssertionError):
    """JSON that cannot be stored exactly, or is not written as the hub writes it."""


class Number(str):
    """A number of JSON, with all its digits."""

    __slots__ = ()


def load(text: str | bytes) -> Any:
    """JSON with exact numbers. Raises Unfit for what is no JSON, or has a member twice."""

    def pairs(members: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(members)
        if len(found) < len(members):
            raise Unfit(f"a member twice among {[name for name, _ in members]}")
        return found

    try:
        return json.loads(
            text,
            parse_int=Number,
            parse_float=Number,
            parse_constant=_refuse_constant,
            object_pairs_hook=pairs,
        )
    except (ValueError, RecursionError) as error:
        raise Unfit(f"no JSON: {error}") from None


def _refuse_constant(name: str) -> Any:
    raise ValueError(name)


# --- the model ---------------------------------------------------------------------------------


def options_of(fd: FieldDescriptor) -> Any:
    """The model's options of a field."""
    options = fd.GetOptions()
    given = options.HasExtension(options_pb2.field)
    return options.Extensions[options_pb2.field] if given else options_pb2.FieldOptions()


def is_map(fd: FieldDescriptor) -> bool:
    """Whether a field is a map."""
    return fd.message_type is not None and bool(fd.message_type.GetOptions().map_entry)


def inner(fd: FieldDescriptor) -> Descriptor | None:
    """The message of the model that a singular field holds."""
    of = fd.message_type
    return of if of is not None and not fd.is_repeated and not _is_value(of) else None


def _is_value(of: Descriptor) -> bool:
    return of.full_name in ("google.protobuf.Timestamp", "google.protobuf.Struct")


def written(message: Descriptor) -> list[FieldDescriptor]:
    """The fields of a record or message that callers write."""
    return [fd for fd in message.fields if not options_of(fd).output_only]


def kind_of(fd: FieldDescriptor) -> str:
    """The kind of the value that a field, or an item of it, holds."""
    encoding = options_of(fd).WhichOneof("encoding")
    if encoding:
        return str(encoding)
    if fd.message_type is not None:
        name = str(fd.message_type.full_name)
        return {"google.protobuf.Timestamp": "time", "google.protobuf.Struct": "struct"}.get(
            name, "message"
        )
    return _KINDS[fd.cpp_type] if fd.type != fd.TYPE_BYTES else "bytes"


_KINDS = {1: "whole", 2: "whole", 3: "whole", 4: "whole", 5: "float", 6: "float", 7: "bool"}
_KINDS |= {8: "enum", 9: "string", 10: "message"}


# --- meanings ----------------------------------------------------------------------------------


def _of_string(fd: FieldDescriptor, value: Any) -> str:
    if type(value) is not str:
        raise Unfit(f"{fd.full_name}: {value!r} is no string")
    return value


def _of_bool(fd: FieldDescriptor, value: Any) -> bool:
    if type(value) is not bool:
        raise Unfit(f"{fd.full_name}: {value!r} is no boolean")
    return value


def exact(text: str) -> Decimal:
    """The number that a text is. Raises Unfit."""
    if not _NUMBER.fullmatch(text):
        raise Unfit(f"{text!r} is no number")
    try:
        return Decimal(text)
    except ArithmeticError:
        raise Unfit(f"{text!r} is beyond all numbers") from None


def _of_whole(fd: FieldDescriptor, value: Any) -> int:
    if not isinstance(value, str):
        raise Unfit(f"{fd.full_name}: {value!r} is no number")
    number = exact(value)
    if number != number.to_integral_value():
        raise Unfit(f"{fd.full_name}: {value!r} has a fraction")
    bits = 32 if fd.cpp_type in (fd.CPPTYPE_INT32, fd.CPPTYPE_UINT32) else 64
    signed = fd.cpp_type in (fd.CPPTYPE_INT32, fd.CPPTYPE_INT64)
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    if not low <= number <= high:
        raise Unfit(f"{fd.full_name}: {value!r} is out of range")
    return int(number)


def _of_float(fd: FieldDescriptor, value: Any) -> float | str:
    """The nearest float. Whole numbers that are written as such must be kept, and only 0 is 0."""
    if not isinstance(value, str):
        raise Unfit(f"{fd.full_name}: {value!r} is no number")
    if value in _ODD and type(value) is str:
        return value
    number = exact(value)
    found = float(number)
    if fd.cpp_type == fd.CPPTYPE_FLOAT:
        found = _single(found)
    if math.isinf(found) or (found == 0) != (number == 0):
        raise Unfit(f"{fd.full_name}: {value!r} is out of range")
    if value.lstrip("-").isdigit() and number not in (Decimal(found), _shortest(fd, found)):
        raise Unfit(f"{fd.full_name}: {value!r} loses digits")
    return found + 0.0  # one zero


def _shortest(fd: FieldDescriptor, value: float) -> Decimal:
    """The number with the fewest digits that is nearest to a float."""
    if fd.cpp_type != fd.CPPTYPE_FLOAT:
        return Decimal(repr(value))
    texts = (f"{value:.{digits}g}" for digits in range(1, 10))
    return next(Decimal(text) for text in texts if _single(float(text)) == value)


def _single(value: float) -> float:
    """The nearest float of 32 bits."""
    try:
        return float(struct.unpack("<f", struct.pack("<f", value))[0])
    except OverflowError:
        return math.copysign(math.inf, value)


def _of_enum(fd: FieldDescriptor, value: Any) -> int:
    if not isinstance(value, str):
        raise Unfit(f"{fd.full_name}: {value!r} is no value of an enum")
    numbers: dict[str, int] = {v.name: v.number for v in fd.enum_type.values}
    for v in fd.enum_type.values:
        options = v.GetOptions()
        if options.HasExtension(options_pb2.label):
            numbers[options.Extensions[options_pb2.label]] = v.number
    numbers |= {str(number): number for number in numbers.values()}
    if value not in numbers:
        raise Unfit(f"{fd.full_name}: {value!r} is no value of the enum")
    return numbers[value]


def _of_bytes(fd: FieldDescriptor, value: Any) -> bytes:
    text = _of_string(fd, value).rstrip("=").replace("-", "+").replace("_", "/")
    try:
        found = base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise Unfit(f"{fd.full_name}: {value!r} is no base64") from None
    if base64.b64encode(found).decode().rstrip("=") != text:
        raise Unfit(f"{fd.full_name}: {value!r} has spare bits")
    return found


def _of_decimal(fd: FieldDescriptor, value: Any) -> Decimal:
    if not isinstance(value, str):
        raise Unfit(f"{fd.full_name}: {value!r} is no decimal")
    number = exact(value)
    limits = options_of(fd).decimal
    precision = limits.precision if limits.HasField("precision") else 38
    scale = limits.scale if limits.HasField("scale") else min(9, precision)
    if number != 0 and not -(10**precision) < number.scaleb(scale) < 10**precision:
        raise Unfit(f"{fd.full_name}: {value!r} is out of range")
    shifted = number.scaleb(scale)
    if shifted != shifted.to_integral_value():
        raise Unfit(f"{fd.full_name}: {value!r} has too many digits")
    return number


def _of_date(fd: FieldDescriptor, value: Any) -> str:
    text = _of_string(fd, value)
    try:
        datetime.strptime(text, "%Y-%m-%d")
    except ValueError:
        raise Unfit(f"{fd.full_name}: {value!r} is no date") from None
    return text


def _of_time(fd: FieldDescriptor, value: Any) -> int:
    """Nanoseconds since 1970."""
    found = _TIME.fullmatch(_of_string(fd, value))
    if not found:
        raise Unfit(f"{fd.full_name}: {value!r} is no time")
    day, clock, digits, zone = found.groups()
    try:
        moment = datetime.fromisoformat(f"{day}T{clock}").replace(tzinfo=UTC)
    except ValueError:
        raise Unfit(f"{fd.full_name}: {value!r} is no time") from None
    since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    if zone not in "Zz":
        plain = zone[1:].replace(":", "").ljust(4, "0")
        offset = timedelta(hours=int(plain[:2]), minutes=int(plain[2:]))
        since -= offset if zone[0] == "+" else -offset
    nanoseconds = int((digits or "0").ljust(9, "0"))
    if nanoseconds % 1000:
        raise Unfit(f"{fd.full_name}: {value!r} has more than six digits of a second")
    return (since.days * 86400 + since.seconds) * 10**9 + nanoseconds


def _of_struct(fd: FieldDescriptor, value: Any) -> Any:
    if type(value) is not dict:
        raise Unfit(f"{fd.full_name}: {value!r} is no object")
    return _of_json(value)


def _of_json(value: Any) -> Any:
    if isinstance(value, Number):
        return exact(value)
    if isinstance(value, list):
        return [_of_json(item) for item in value]
    if isinstance(value, dict):
        return {name: _of_json(item) for name, item in value.items()}
    # Apart from true: Python's 1 == True.
    return ("bool", value) if isinstance(value, bool) else value


_MEANINGS: Mapping[str, Callable[[FieldDescriptor, Any], Any]] = {
    "string": _of_string,
    "bool": _of_bool,
    "whole": _of_whole,
    "float": _of_float,
    "enum": _of_enum,
    "bytes": _of_bytes,
    "decimal": _of_decimal,
    "date": _of_date,
    "time": _of_time,
    "struct": _of_struct,
}


def meaning(fd: FieldDescriptor, value: Any) -> Any:
    """What a value of a field that is not a message means; not for null."""
    if is_map(fd):
        return _of_map(fd, value)
    if fd.is_repeated:
        if type(value) is not list:
            raise Unfit(f"{fd.full_name}: {value!r} is no array")
        return [_of_item(fd, item) for item in value]
    return _MEANINGS[kind_of(fd)](fd, value)


def _of_map(fd: FieldDescriptor, value: Any) -> Any:
    if type(value) is not dict:
        raise Unfit(f"{fd.full_name}: {value!r} is no object")
    kinds = fd.message_type.fields_by_name
    found = {}
    for name, item in value.items():
        key = name if kind_of(kinds["key"]) == "string" else _of_key(kinds["key"], name)
        if key in found:
            raise Unfit(f"{fd.full_name}: the key {name!r} twice")
        found[key] = _of_item(kinds["value"], item)
    return found


def _of_key(fd: FieldDescriptor, name: str) -> Any:
    if kind_of(fd) == "bool":
        return {"true": True, "false": False}[name]
    return _of_whole(fd, name)


def _of_item(fd: FieldDescriptor, value: Any) -> Any:
    if value is None:
        raise Unfit(f"{fd.full_name}: null among its items")
    of = fd.message_type
    if of is not None and not _is_value(of):
        return element(of, value)
    return _MEANINGS[kind_of(fd)](fd, value)


def element(message: Descriptor, value: Any) -> Tree:
    """A message in a list or map: what is not given is its default, or absent."""
    found: Tree = {}
    for fd, given in members(message, value):
        if given is None or (given == "" and kind_of(fd) in ("decimal", "date")):
            continue  # never set, as protobuf says it of both
        of = inner(fd)
        found[fd.name] = element(of, given) if of is not None else meaning(fd, given)
    for fd in message.fields:
        if fd.name not in found and (default := default_of(fd)) is not None:
            found[fd.name] = default
    return found


def members(message: Descriptor, value: Any) -> list[tuple[FieldDescriptor, Any]]:
    """The members of an object, each with its field. Raises Unfit for those that no field has."""
    if type(value) is not dict:
        raise Unfit(f"{message.full_name}: {value!r} is no object")
    names = {fd.name: fd for fd in message.fields} | {fd.json_name: fd for fd in message.fields}
    found: dict[str, tuple[FieldDescriptor, Any]] = {}
    for name, given in value.items():
        if name not in names:
            raise Unfit(f"{message.full_name} has no field {name!r}")
        fd = names[name]
        if fd.name in found:
            raise Unfit(f"{message.full_name}.{fd.name} by both of its names")
        found[fd.name] = (fd, given)
    return list(found.values())


def default_of(fd: FieldDescriptor) -> Any:
    """The value of a field that was never set; None if it has none."""
    if is_map(fd):
        return {}
    if fd.is_repeated:
        return []
    kind = kind_of(fd)
    if fd.has_presence or kind == "date":
        return None
    defaults: Mapping[str, Any] = {"string": "", "bool": False, "whole": 0, "float": 0.0}
    return {**defaults, "enum": 0, "bytes": b"", "decimal": Decimal(0)}[kind]


# --- records -----------------------------------------------------------------------------------


def blank(message: Descriptor) -> Tree:
    """A record, or a nested message, of which nothing is set."""
    return {fd.name: None for fd in written(message)}


def settle(message: Descriptor, tree: Tree, *, nested: bool = False) -> Tree | None:
    """The tree with the defaults that the hub stores. A nested message without any value is None;
    one that has a value has the defaults of its others."""
    found = dict(tree)
    for fd in written(message):
        of = inner(fd)
        if of is not None and found[fd.name] is not None:
            found[fd.name] = settle(of, found[fd.name], nested=True)
    if nested and all(value is None for value in found.values()):
        return None
    for fd in written(message):
        if found[fd.name] is None and inner(fd) is None:
            found[fd.name] = default_of(fd)
    return found


def created(message: Descriptor, value: Any) -> Tree:
    """The record that JSON creates, or replaces."""
    return merged(message, blank(message), value)


def merged(message: Descriptor, before: Tree, value: Any, *, maps: bool = False) -> Tree:
    """A record after a merge patch (RFC 7396); ``maps``: maps and Structs merge, too."""
    tree = copy.deepcopy(before)
    _merge(message, tree, value, maps=maps)
    for fd in written(message):
        given = before[fd.name]
        if options_of(fd).key and given is not None:  # the path of the call says it
            if tree[fd.name] not in (given, None, default_of(fd)):
                raise Unfit(f"{fd.full_name} differs from the path")
            tree[fd.name] = given
    settled = settle(message, tree)
    assert settled is not None
    return settled


def _merge(message: Descriptor, tree: Tree, value: Any, *, maps: bool) -> None:
    given = [(fd, v) for fd, v in members(message, value) if fd.name in tree]
    for oneof in (o for o in message.oneofs if len(o.fields) > 1):
        names = {fd.name for fd in oneof.fields}
        chosen = [fd.name for fd, v in given if fd.name in names and v is not None]
        if len(chosen) > 1:
            raise Unfit(f"{oneof.full_name}: several of {chosen}")
        if chosen:
            tree.update(dict.fromkeys(names - {*chosen}))
    for fd, one in given:
        of = inner(fd)
        if one is None:
            tree[fd.name] = None
        elif of is not None:
            if tree[fd.name] is None:
                tree[fd.name] = blank(of)
            _merge(of, tree[fd.name], one, maps=maps)
        elif maps and is_map(fd):
            tree[fd.name] = _merge_map(fd, tree[fd.name] or {}, one)
        elif maps and kind_of(fd) == "struct":
            meant = _of_struct(fd, one)
            tree[fd.name] = _merge_json(tree[fd.name] or {}, meant)
        else:
            tree[fd.name] = meaning(fd, one)


def _merge_map(fd: FieldDescriptor, before: Mapping[Any, Any], value: Any) -> Any:
    if type(value) is not dict:
        raise Unfit(f"{fd.full_name}: {value!r} is no object")
    kinds, found = fd.message_type.fields_by_name, dict(before)
    for name, item in value.items():
        key = name if kind_of(kinds["key"]) == "string" else _of_key(kinds["key"], name)
        of = inner(kinds["value"])
        if item is None:
            found.pop(key, None)
        elif of is not None:
            found[key] = _merge_element(of, found.get(key), item)
        else:
            found[key] = _of_item(kinds["value"], item)
    return found


def _merge_element(message: Descriptor, before: Tree | None, value: Any) -> Tree:
    """A message in a map after a merge."""
    found = dict(before or {})
    for fd, given in members(message, value):
        of = inner(fd)
        if given is None:
            found.pop(fd.name, None)
        elif of is not None:
            found[fd.name] = _merge_element(of, found.get(fd.name), given)
        elif is_map(fd):
            found[fd.name] = _merge_map(fd, found.get(fd.name, {}), given)
        else:
            found[fd.name] = meaning(fd, given)
    return element(message, {}) | found


def _merge_json(before: Any, value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    found = dict(before) if isinstance(before, dict) else {}
    for name, item in value.items():
        if item is None:
            found.pop(name, None)
        else:
            found[name] = _merge_json(found.get(name), item)
    return found


def masked(message: Descriptor, before: Tree, value: Any, paths: Collection[str]) -> Tree:
    """A record after an update that names its fields by proto paths. Its key stays."""
    source = blank(message)
    _merge(message, source, value, maps=False)
    tree = copy.deepcopy(before)
    for path in paths:
        _copy(message, tree, source, path.split("."))
    settled = settle(message, tree)
    assert settled is not None
    return settled


def _copy(message: Descriptor, tree: Tree, source: Tree | None, steps: Sequence[str]) -> None:
    name, *rest = steps
    fd = message.fields_by_name.get(name)
    if fd is None:
        raise Unfit(f"{message.full_name} has no field {name!r}")
    if name not in tree or options_of(fd).key:
        return  # the hub writes it itself, or the path of the call says it
    value = None if source is None else source[name]
    if value is not None:
        for oneof in (o for o in message.oneofs if len(o.fields) > 1):
            if fd in oneof.fields:
                tree.update(dict.fromkeys({one.name for one in oneof.fields} - {name}))
    of = inner(fd)
    if not rest:
        tree[name] = copy.deepcopy(value)
    elif of is None:
        raise Unfit(f"{message.full_name}.{name} has no members")
    else:
        if tree[name] is None:
            tree[name] = blank(of)
        _copy(of, tree[name], value, rest)


# --- what the hub shows ------------------------------------------------------------------------


def shown(message: Descriptor, value: Any, *, nested: bool = False) -> Tree:
    """The tree of a record as the hub writes it. Raises Unfit where its form is another: a member
    that is missing, or out of order, or of another type."""
    if type(value) is not dict:
        raise Unfit(f"{message.full_name}: {value!r} is no object")
    names = [fd.json_name for fd in message.fields]
    if list(value) != names:
        raise Unfit(f"{message.full_name} shows {list(value)}, not {names}")
    found: Tree = {}
    for fd in written(message):
        given = value[fd.json_name]
        of = inner(fd)
        if given is None:
            if default_of(fd) is not None and of is None:
                raise Unfit(f"{fd.full_name} is null, and has a default")
            found[fd.name] = None
        elif of is not None:
            found[fd.name] = shown(of, given, nested=True)
        else:
            _check_form(fd, given)
            found[fd.name] = meaning(fd, given)
    return found


def _check_form(fd: FieldDescriptor, value: Any) -> None:
    """Check how the hub writes a value, or each of a list's or map's."""
    if fd.is_repeated:
        item = fd.message_type.fields_by_name["value"] if is_map(fd) else fd
        for one in value.values() if is_map(fd) else value:
            _check_item(item, one)
        return
    _check_item(fd, value)


def _check_item(fd: FieldDescriptor, value: Any) -> None:
    of = fd.message_type
    if of is not None and not _is_value(of):
        for member, given in members(of, value):
            _check_form(member, given)
        return
    kind = kind_of(fd)
    if kind == "whole" and fd.cpp_type in (fd.CPPTYPE_INT32, fd.CPPTYPE_UINT32):
        fits = isinstance(value, Number)
    elif kind == "float":
        fits = isinstance(value, Number) or value in _ODD
    elif kind == "enum":
        fits = type(value) is str and not value.isdigit()
    elif (form := _FORMS.get(kind)) is not None:
        fits = type(value) is str and bool(form.fullmatch(value))
    else:
        fits = True  # its meaning has a type that says it
    if not fits:
        raise Unfit(f"{fd.full_name} is written as {value!r}")
