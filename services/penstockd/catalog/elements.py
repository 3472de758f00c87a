"""Repeated fields and maps: JSON in, checked against the field's element, canonical JSON out.

Canonical: camelCase names, members in the message's order, members without presence always present,
absent ones left out, so that equal values are equal data however they were written.
"""

from __future__ import annotations

from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from penstock.options.v1 import options_pb2
from penstockd.catalog import scalars
from penstockd.catalog.leniency import STRICT, Leniency
from penstockd.catalog.load import load_leaf
from penstockd.catalog.model import VALUE_MESSAGES, Field, FieldClass, Kind
from penstockd.catalog.oneofs import several_set, true_oneofs
from penstockd.catalog.scalars import Parser, ValueRefused, type_name

_PLAIN = (Kind.STRING, Kind.ENUM, Kind.BOOL, Kind.INT32, Kind.UINT32)


def repeated_parser(field: Field, leniency: Leniency = STRICT) -> Parser:
    """From parsed JSON (see ``values.load_json``) to the canonical LIST or MAP."""
    if field.element_message is not None:
        item: Parser = _ElementParser.of(field.element_message, _Known(leniency), field.path)
    else:
        assert field.element is not None
        item = _scalar_parser(field.element, leniency)
    return _items_parser(field, item)


def _items_parser(field: Field, item: Parser) -> Parser:
    """The parser of a LIST or MAP whose elements ``item`` parses."""
    if field.kind is Kind.LIST:
        return _list_parser(item)
    assert field.map_key is not None, "a map has keys"
    return _map_parser(map_key_parser(field.map_key), item)


def map_key_parser(kind: Kind) -> Parser:
    """The parser of a map's keys, which are text in JSON whatever their type in protobuf."""
    if kind is Kind.STRING:
        return scalars.parse_string
    key = Field("", "", kind, FieldClass.PUBLIC, False)
    parse = scalars.text_parser(key)
    return lambda text: scalars.to_text(key, parse(text))


def default_value(field: Field) -> Any:
    """The canonical value of a field that is not nullable and was not given.

    Raises ValueRefused for keys, dates and times, which have none.
    """
    if not field.in_key:
        match field.kind:
            case Kind.STRING:
                return ""
            case Kind.ENUM:
                return next(name for name, n in (field.enum_values or {}).items() if n == 0)
            case Kind.BOOL:
                return False
            case Kind.BYTES:
                return b""
            case Kind.FLOAT | Kind.DOUBLE:
                return 0.0
            case Kind.LIST:
                return []
            case Kind.MAP:
                return {}
            case Kind.DATE | Kind.TIMESTAMP:
                pass
            case Kind.DECIMAL:
                return scalars.text_parser(field)("0")
            case _:
                return 0
    raise ValueRefused("is required")


def _scalar_parser(field: Field, leniency: Leniency) -> Parser:
    parse = scalars.json_parser(field, leniency.times)
    if field.kind in _PLAIN:
        return parse
    return lambda value: scalars.to_json(field, parse(value))


def _list_parser(item: Parser) -> Parser:
    def parse(value: Any) -> list[Any]:
        if type(value) is not list:
            raise ValueRefused(f"must be an array, not {type_name(value)}")
        try:
            return [item(v) for v in value]
        except ValueRefused:
            for i, v in enumerate(value):
                _parse_at(f"[{i}]", item, v)
            raise

    return parse


def _map_parser(key: Parser, item: Parser) -> Parser:
    def parse(value: Any) -> dict[str, Any]:
        if type(value) is not dict:
            raise ValueRefused(f"must be an object, not {type_name(value)}")
        parsed = {
            _parse_at("key", key, k): _parse_at(f"[{k[:40]!r}]", item, v) for k, v in value.items()
        }
        if len(parsed) < len(value):
            raise ValueRefused("has a key twice, spelled in two ways")
        return parsed

    return parse


def _parse_at(where: str, parse: Parser, value: Any) -> Any:
    try:
        return parse(value)
    except ValueRefused as refused:
        raise refused.within(where) from None


@dataclass(frozen=True)
class _Known:
    """The parsers of messages that were made, by the messages' names."""

    leniency: Leniency
    parsers: dict[str, _ElementParser] = dataclass_field(default_factory=dict)


class _ElementParser:
    """Parses one element message; members of message type included."""

    def __init__(self, leniency: Leniency, path: str) -> None:
        self._unknown, self._path = leniency.unknown, path
        self._members: list[tuple[str, Parser, bool, Any]] = []
        self._names: dict[str, str] = {}
        self._oneofs: list[tuple[str, list[str]]] = []

    @classmethod
    def of(cls, message: Descriptor, known: _Known, path: str) -> _ElementParser:
        """The parser of a message. Each is made once, so that a message may contain itself.

        ``path`` is where it stands first; unknown members are named by it.
        """
        if message.full_name not in known.parsers:
            made = known.parsers[message.full_name] = cls(known.leniency, path)
            for fd in message.fields:
                made._add(fd, known)
            for oneof in true_oneofs(message):
                made._oneofs.append((oneof.name, [fd.json_name for fd in oneof.fields]))
        return known.parsers[message.full_name]

    def _add(self, fd: FieldDescriptor, known: _Known) -> None:
        path = f"{self._path}.{fd.name}"
        self._names |= {fd.json_name: fd.json_name, fd.name: fd.json_name}
        of = fd.message_type
        if of is not None and not fd.is_repeated and of.full_name not in VALUE_MESSAGES:
            self._members.append((fd.json_name, self.of(of, known, path), False, None))
            return
        every: Any = fd.GetOptions()
        options = every.Extensions[options_pb2.field]
        field = load_leaf(fd, options, fd.name, fd.json_name, FieldClass.PUBLIC, False, {})
        if field.repeated:
            if field.element_message is not None:
                item: Parser = self.of(field.element_message, known, path)
            else:
                assert field.element is not None
                item = _scalar_parser(field.element, known.leniency)
            parse = _items_parser(field, item)
        else:
            parse = _scalar_parser(field, known.leniency)
        filled = not field.nullable and field.kind not in (Kind.DATE, Kind.TIMESTAMP)
        value = default_value(field) if filled else None
        if filled and not field.repeated and field.kind not in _PLAIN:
            value = scalars.to_json(field, value)
        self._members.append((fd.json_name, parse, filled, value))

    def __call__(self, value: Any) -> dict[str, Any]:
        if type(value) is not dict:
            raise ValueRefused(f"must be an object, not {type_name(value)}")
        given: dict[str, Any] = {}
        for name, v in value.items():
            known = self._names.get(name)
            if known is None and self._unknown is not None:
                self._unknown.note(f"{self._path}.{name}")
                continue
            if known is None:
                raise ValueRefused(f"has the unknown member {name[:40]!r}")
            if known in given:
                raise ValueRefused(f"has the member {known[:40]!r} twice")
            given[known] = v
        for name, members in self._oneofs:
            chosen = [m for m in members if given.get(m) is not None]
            if len(chosen) > 1:
                raise ValueRefused(several_set(iter(chosen)), (f".{name}",))
        result = {}
        for name, parse, filled, absent in self._members:
            v = given.get(name)
            if v == "" and absent == "0":  # the value in a message of a decimal that was never set
                v = None
            if v is not None:
                result[name] = _parse_at("." + name, parse, v)
            elif filled:
                result[name] = absent.copy() if isinstance(absent, list | dict) else absent
        return result
