"""The syntax of expressions: CEL text -> a tree that ``expressions`` understands.

A library parses the text. It returns its tree only as a serialised ``cel.expr.CheckedExpr``
(cel/expr/checked.proto and syntax.proto of the CEL specification), which is read here by field
number.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cel_expr_python import cel
from cel_expr_python.ext.ext_strings import ExtStrings
from google.protobuf import unknown_fields
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.empty_pb2 import Empty

from penstockd.query.syntax import is_storable

#: The most bytes of an expression, and the most nodes of the trees of one shape.
MAX_BYTES, MAX_NODES = 2048, 300


class ExpressionRefused(ValueError):
    """An expression is not CEL, or uses what shapes lack: "the expression" and then the text."""


@dataclass(frozen=True, slots=True)
class Constant:
    """A literal: None, bool, int, float or str."""

    value: bool | int | float | str | None


@dataclass(frozen=True, slots=True)
class Name:
    """A field, by its path."""

    path: str


@dataclass(frozen=True, slots=True)
class ListOf:
    """A list of expressions, as the right side of ``in``."""

    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Apply:
    """An operator or a function; CEL names operators ``_+_``, ``!_``, ``_?_:_`` and so on. A call
    of a method has its receiver first."""

    function: str
    arguments: tuple[Node, ...]


Node = Constant | Name | ListOf | Apply

# Field numbers of cel.expr.CheckedExpr and cel.expr.Expr.
_CHECKED_EXPR, _CHECKED_REFERENCES = 4, 2
_ID, _CONSTANT, _IDENT, _SELECT, _CALL, _LIST = 2, 3, 4, 5, 6, 7
_UNSUPPORTED = {8: "maps and messages", 9: "macros such as all() and map()"}
_NULL, _BOOL, _INT, _UINT, _DOUBLE, _STRING = 1, 2, 3, 4, 5, 6

_Fields = Mapping[int, list[int | bytes]]


class ExpressionParser:
    """Parses expressions over the fields at ``paths``, which together may have MAX_NODES nodes.

    Names of other fields are unknown, whether they exist or not.
    """

    def __init__(self, paths: Iterable[str]) -> None:
        variables = {path: cel.Type.DYN for path in paths}
        self._environment = cel.NewEnv(variables=variables, extensions=[ExtStrings()])
        self._left = MAX_NODES

    def parse(self, text: str) -> Node:
        """The tree of an expression. Raises ExpressionRefused."""
        if not text.strip():
            raise ExpressionRefused("is empty")
        if len(text.encode()) > MAX_BYTES:
            raise ExpressionRefused(f"may have {MAX_BYTES} bytes at most")
        try:
            serialized = self._environment.compile(text).serialize()
        except RuntimeError as error:
            raise ExpressionRefused(_first_line(str(error))) from None
        reader = _TreeReader(_fields_of(AnyMessage.FromString(serialized).value), self._left)
        tree = reader.read()
        self._left = reader.left
        return tree


class _TreeReader:
    """Reads the tree of one checked expression; ``left`` is how many nodes it may still have."""

    def __init__(self, checked: _Fields, most: int) -> None:
        self._root = _take_message(checked, _CHECKED_EXPR)
        self.left = most
        self._names: dict[int, str] = {}
        for entry in checked.get(_CHECKED_REFERENCES, []):
            reference = _fields_of(_as_bytes(entry))
            name = _take_text(_fields_of(_as_bytes(reference[2][0])), 1) if 2 in reference else ""
            if name:
                self._names[_as_whole(reference.get(1, [0])[0])] = name

    def read(self) -> Node:
        """The tree."""
        return self._node(self._root)

    def _node(self, data: bytes) -> Node:
        self.left -= 1
        if self.left < 0:
            raise ExpressionRefused(
                f"is too long: a shape may have {MAX_NODES} operators and operands in all"
            )
        fields = _fields_of(data)
        # A path with dots is one name; the checker says for which node.
        if (name := self._names.get(_as_whole(fields.get(_ID, [0])[0]))) and (
            _IDENT in fields or _SELECT in fields
        ):
            return Name(name)
        if _CONSTANT in fields:
            return _read_constant(_fields_of(_take_message(fields, _CONSTANT)))
        if _CALL in fields:
            call = _fields_of(_take_message(fields, _CALL))
            parts = [*call.get(1, []), *call.get(3, [])]
            return Apply(_take_text(call, 2), tuple(self._node(_as_bytes(part)) for part in parts))
        if _LIST in fields:
            items = _fields_of(_take_message(fields, _LIST)).get(1, [])
            return ListOf(tuple(self._node(_as_bytes(item)) for item in items))
        if _SELECT in fields:
            raise ExpressionRefused("takes members of fields only by their path")
        for number, what in _UNSUPPORTED.items():
            if number in fields:
                raise ExpressionRefused(f"uses {what}, which shapes do not have")
        raise ExpressionRefused("is not understood")


def _read_constant(fields: _Fields) -> Constant:
    if _STRING in fields:
        text = _as_bytes(fields[_STRING][0]).decode()
        if not is_storable(text):
            raise ExpressionRefused("has a text with a character that no value can hold")
        return Constant(text)
    if _BOOL in fields:
        return Constant(bool(fields[_BOOL][0]))
    if _INT in fields:
        value = _as_whole(fields[_INT][0])
        return Constant(value - (1 << 64) if value >= 1 << 63 else value)
    if _DOUBLE in fields:
        (number,) = struct.unpack("<d", struct.pack("<Q", fields[_DOUBLE][0]))
        return Constant(number)
    if _NULL in fields:
        return Constant(None)
    if _UINT in fields:
        raise ExpressionRefused("has an unsigned number: write it without the u")
    raise ExpressionRefused("has a literal that shapes do not have")


def _fields_of(data: bytes) -> _Fields:
    """The fields of a message by number: numbers as int, the rest as bytes."""
    found: dict[int, list[int | bytes]] = {}
    unknown: Any = unknown_fields.UnknownFieldSet(Empty.FromString(data))
    for field in unknown:
        found.setdefault(field.field_number, []).append(field.data)
    return found


def _take_message(fields: _Fields, number: int) -> bytes:
    return _as_bytes(fields[number][0])


def _as_bytes(value: int | bytes) -> bytes:
    assert isinstance(value, bytes), "the library's tree has another shape"
    return value


def _as_whole(value: int | bytes) -> int:
    assert isinstance(value, int), "the library's tree has another shape"
    return value


def _take_text(fields: _Fields, number: int) -> str:
    return _as_bytes(fields[number][0]).decode() if number in fields else ""


def _first_line(message: str) -> str:
    """What is wrong, without the library's status and picture."""
    line = message.splitlines()[0]
    return (
        line.removeprefix("INVALID_ARGUMENT: ").removeprefix("ERROR: ").replace("<input>:", "at ")
    )
