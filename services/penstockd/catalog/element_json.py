"""Lists, maps and Structs of messages as JSON text, byte for byte as the store prints its jsonb.

jsonb has a space after each comma and colon, members by the length of their names and then by these
bytes, and numbers with all their digits. Members without a value are left out, as in the canonical
data that the store holds (see ``elements``).
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Collection, Iterable, Mapping
from decimal import Decimal
from typing import Any

import orjson
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from penstock.options.v1 import options_pb2
from penstockd.catalog.load import load_leaf
from penstockd.catalog.model import VALUE_MESSAGES, Field, FieldClass, Kind
from penstockd.catalog.record import time_of
from penstockd.catalog.structs import order_of
from penstockd.floats import format_float, name_odd_float, settle_float

#: A value -> its JSON text.
Write = Callable[[Any], bytes]
#: A message -> a member of it as JSON text; None if it is absent.
Member = Callable[[Any], bytes | None]

_BARE = (Kind.INT32, Kind.UINT32)
_WHOLE = (Kind.INT64, Kind.UINT64)


def many_writer(field: Field, left_out: Collection[str] = ()) -> Write:
    """A writer of what a message has in a LIST or MAP. ``left_out`` are the paths of the members of
    its messages that are not shown."""
    of, paths = field.element_message, frozenset(left_out)
    item = _scalar_writer(field.element) if field.element else None
    if of is not None:
        item = _Messages(paths).writer(of, f"{field.path}.")
    assert item is not None, "a list or map has elements"
    return _map_writer(item) if field.kind is Kind.MAP else _list_writer(item)


def data_text(value: Any) -> bytes:
    """JSON data of a list or map of messages, as ``orjson`` parses it, in this form again."""
    if isinstance(value, dict):
        return _write_object(value, data_text)
    if isinstance(value, list):
        return b"[" + b", ".join(map(data_text, value)) + b"]"
    return double_text(value) if isinstance(value, float) else orjson.dumps(value)


def struct_text(message: Any) -> bytes:
    """The JSON text of a message of type Struct."""
    return _write_object(message.fields, _struct_value)


def _struct_value(value: Any) -> bytes:
    match value.WhichOneof("kind"):
        case "struct_value":
            return struct_text(value.struct_value)
        case "list_value":
            return b"[" + b", ".join(map(_struct_value, value.list_value.values)) + b"]"
        case "number_value":
            number: float = value.number_value
            return b"%d" % number if number.is_integer() else double_text(number)
        case "string_value":
            return orjson.dumps(value.string_value)
        case "bool_value":
            return b"true" if value.bool_value else b"false"
    return b"null"


def _write_object(members: Mapping[str, Any], write: Write) -> bytes:
    names = sorted(members, key=order_of)
    pairs = [orjson.dumps(name) + b": " + write(members[name]) for name in names]
    return b"{" + b", ".join(pairs) + b"}"


def _list_writer(item: Write) -> Write:
    return lambda items: b"[" + b", ".join([item(v) for v in items]) + b"]"


def _map_writer(item: Write) -> Write:
    def write(held: Any) -> bytes:
        # A map of messages makes a member that is missing, so it is read once, as items.
        return _write_object({_key_text(k): v for k, v in held.items()}, item)

    return write


def _key_text(key: Any) -> str:
    return ("true" if key else "false") if isinstance(key, bool) else str(key)


# --- scalars ---


def double_text(value: float) -> bytes:
    """A DOUBLE as jsonb prints it: all digits, and no exponent."""
    value = settle_float(value)
    if value - value != 0:  # NaN or an infinity
        return b'"%s"' % name_odd_float(value).encode()
    text = repr(value)
    return (format(Decimal(text), "f") if "e" in text else text).encode()


def _single_text(value: float) -> bytes:
    if value - value != 0:
        return double_text(value)
    return double_text(float(format_float(value, single=True)))


def _scalar_writer(field: Field) -> Write:
    """The writer of values as they stand in a message."""
    match field.kind:
        case Kind.ENUM:
            names = {number: name for name, number in (field.enum_values or {}).items()}
            known = {number: orjson.dumps(name) for number, name in names.items()}
            # An image of an earlier model may have a number that has no name any more.
            return lambda number: known.get(number) or b"%d" % number
        case Kind.BOOL:
            return lambda value: b"true" if value else b"false"
        case Kind.BYTES:
            return lambda value: b'"' + base64.b64encode(value) + b'"'
        case Kind.TIMESTAMP:
            return lambda stamp: b'"%s"' % time_of(stamp).encode()
        case Kind.FLOAT:
            return _single_text
        case Kind.DOUBLE:
            return double_text
        case Kind.DECIMAL:
            return lambda text: b'"%s"' % (text.encode() or b"0")
    if field.kind in _BARE:
        return lambda value: b"%d" % value
    return (lambda value: b'"%d"' % value) if field.kind in _WHOLE else orjson.dumps


# --- messages ---


class _Messages:
    """The writers of messages, each made once, so that a message may contain itself."""

    def __init__(self, left_out: frozenset[str]) -> None:
        self._left_out = left_out
        self._known: dict[tuple[str, str], Write] = {}

    def writer(self, message: Descriptor, prefix: str) -> Write:
        """The writer of a message whose members have paths that begin with ``prefix``."""
        if not any(path.startswith(prefix) for path in self._left_out):
            prefix = ""  # all of it is shown, and so all that it contains
        key = (message.full_name, prefix)
        if key not in self._known:
            members: list[tuple[bytes, Member]] = []
            self._known[key] = _message_writer(members)
            for fd in sorted(message.fields, key=lambda fd: order_of(fd.json_name)):
                path = prefix + fd.name if prefix else ""
                if path and self._hides(fd, path):
                    continue
                members.append((orjson.dumps(fd.json_name) + b": ", self._member(fd, path)))
        return self._known[key]

    def _hides(self, fd: FieldDescriptor, path: str) -> bool:
        return path in self._left_out

    def _member(self, fd: FieldDescriptor, path: str) -> Member:
        name, of = fd.name, fd.message_type
        if of is not None and not fd.is_repeated and of.full_name not in VALUE_MESSAGES:
            return _make_optional(name, self.writer(of, f"{path}." if path else ""))
        field = _leaf_of(fd)
        if field.repeated:
            return _make_always(name, self._many(field, path))
        write = _scalar_writer(field)
        if field.presence:
            return _make_optional(name, write)
        return _make_given(name) if field.kind is Kind.DATE else _make_always(name, write)

    def _many(self, field: Field, path: str) -> Write:
        of = field.element_message
        if of is not None:
            item = self.writer(of, f"{path}." if path else "")
        else:
            assert field.element is not None, "a list or map has elements"
            item = _scalar_writer(field.element)
        return _map_writer(item) if field.kind is Kind.MAP else _list_writer(item)


def _leaf_of(fd: FieldDescriptor) -> Field:
    every: Any = fd.GetOptions()
    options = every.Extensions[options_pb2.field]
    return load_leaf(fd, options, fd.name, fd.json_name, FieldClass.PUBLIC, False, {})


def _message_writer(members: Iterable[tuple[bytes, Member]]) -> Write:
    def write(message: Any) -> bytes:
        found = [(name, member(message)) for name, member in members]
        return b"{" + b", ".join([name + text for name, text in found if text is not None]) + b"}"

    return write


def _make_always(name: str, write: Write) -> Member:
    return lambda message: write(getattr(message, name))


def _make_optional(name: str, write: Write) -> Member:
    return lambda message: write(getattr(message, name)) if message.HasField(name) else None


def _make_given(name: str) -> Member:
    return lambda message: orjson.dumps(text) if (text := getattr(message, name)) else None
