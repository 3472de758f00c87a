"""The elements of a repeated field -> data as in proto JSON, with numbers as texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from penstockd.catalog.leniency import UnknownNames
from penstockd.catalog.model import VALUE_MESSAGES, Field, Kind
from penstockd.catalog.values import ValueRefused

_BOOLS: dict[str, Any] = {"true": True, "false": False}
_TRUTHS = {"true": True, "1": True, "false": False, "0": False}


@dataclass(eq=False)
class XmlNode:
    """The content of an element: text, items of a list, entries of a map, or members of a
    message."""

    kind: str  # "text", "bool", "list", "map" or "message"
    item: XmlNode | None = None
    members: dict[str, XmlNode] = field(default_factory=dict)


_TEXT, _BOOL = XmlNode("text"), XmlNode("bool")
_SCHEMA = "http://www.w3.org/2001/XMLSchema-instance"
#: What is said of an element that is null, and not empty.
FILLED = "is null, but holds something"


def nil_names(attributes: Sequence[str]) -> frozenset[str]:
    """The names that ``xsi:nil`` has within an element with these attributes, names and values in
    turn: as they declare its prefix."""
    pairs = zip(attributes[::2], attributes[1::2], strict=True)
    declared = [n for n, value in pairs if n.startswith("xmlns:") and value == _SCHEMA]
    return frozenset(f"{name.removeprefix('xmlns:')}:nil" for name in declared)


def read_nil(attributes: list[str], known: frozenset[str]) -> tuple[bool, list[str]]:
    """Whether an element says that it is null, and its other attributes."""
    own = nil_names(attributes)
    null, others = False, list[str]()
    for name, value in zip(attributes[::2], attributes[1::2], strict=True):
        if name in known | own and value in _TRUTHS:
            null = _TRUTHS[value]
        elif f"{name.removeprefix('xmlns:')}:nil" not in own:
            others += [name, value]
    return null, others


def node_of(column: Field) -> XmlNode:
    """The node of a repeated field."""
    if column.element_message is not None:
        item = _message_node(column.element_message, {})
    else:
        assert column.element is not None
        item = _BOOL if column.element.kind is Kind.BOOL else _TEXT
    return XmlNode("map" if column.kind is Kind.MAP else "list", item)


def _message_node(message: Descriptor, known: dict[str, XmlNode]) -> XmlNode:
    if message.full_name not in known:
        node = known[message.full_name] = XmlNode("message")
        for fd in message.fields:
            node.members[fd.name] = _member_node(fd, known)
    return known[message.full_name]


def _member_node(fd: FieldDescriptor, known: dict[str, XmlNode]) -> XmlNode:
    of, repeated = fd, "list"
    if fd.message_type is not None and fd.message_type.GetOptions().map_entry:
        of, repeated = fd.message_type.fields_by_name["value"], "map"
    if of.message_type is not None and of.message_type.full_name not in VALUE_MESSAGES:
        node = _message_node(of.message_type, known)
    else:
        node = _BOOL if of.type == FieldDescriptor.TYPE_BOOL else _TEXT
    return XmlNode(repeated, node) if fd.is_repeated else node


class Tree:
    """Builds the value of one repeated field from its elements; raises ValueRefused.

    ``unknown`` counts the members that the model does not have; without it they are refused.
    """

    def __init__(
        self,
        node: XmlNode,
        path: str = "",
        unknown: UnknownNames | None = None,
        nils: frozenset[str] = frozenset(),
    ) -> None:
        """``nils`` are the names of ``xsi:nil`` in the document."""
        self._path, self._unknown, self._nils = path, unknown, nils
        self._null = 0  # the number of open elements with one that is null
        self.value: Any = {} if node.kind == "map" else []
        self._open: list[tuple[XmlNode, Any, str]] = [(node, self.value, "")]

    def start(self, name: str, attributes: list[str]) -> bool:
        """Begin an element within the current one; return False if it is to be skipped."""
        node, value, _ = self._open[-1]
        if self._null:
            raise ValueRefused(FILLED)
        key = name
        if node.kind == "map" and name == "entry" and attributes[:1] == ["key"]:
            key, attributes = attributes[1], attributes[2:]
        elif node.kind == "map" or (node.kind == "list" and name != "item"):
            wanted = '<entry key="…">' if node.kind == "map" else "<item>"
            raise ValueRefused(f"holds <{name[:40]}>, not {wanted}")
        below = node.members.get(name) if node.kind == "message" else node.item
        if below is None and self._unknown is not None:
            steps = [k for (above, _, _), (_, _, k) in pairwise(self._open) if above.members]
            self._unknown.note(".".join([self._path, *steps, name]))
            return False
        null = False
        if attributes and node.kind == "message":
            null, attributes = read_nil(attributes, self._nils)
        if attributes:
            raise ValueRefused(f"has an attribute '{attributes[0][:40]}'")
        if below is None:
            raise ValueRefused(f"holds an unknown element <{name[:40]}>")
        if node.kind != "list" and key in value:
            raise ValueRefused(f"holds {key[:40]!r} twice")
        made: Any = {} if below.kind in ("map", "message") else []
        self._open.append((below, made, key))
        self._null = len(self._open) if null else 0
        return True

    def text(self, text: str) -> None:
        """Add text to the current element."""
        node, value, _ = self._open[-1]
        if self._null:
            raise ValueRefused(FILLED)
        if node.kind in ("text", "bool"):
            value.append(text)
        elif not text.isspace():
            raise ValueRefused("has text beside its elements")

    def end(self) -> bool:
        """End the current element; return whether it was the field itself."""
        node, value, key = self._open.pop()
        if not self._open:
            return True
        if self._null:
            self._null, value = 0, None
        elif node.kind in ("text", "bool"):
            value = "".join(value)
            if node.kind == "bool":
                value = _BOOLS.get(value, value)
        above = self._open[-1][1]
        if isinstance(above, list):
            above.append(value)
        else:
            above[key] = value
        return False
