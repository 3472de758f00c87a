"""Records in XML, in the bodies of calls: by the schema of exports, as data that JSON would give.

``RecordBodies`` then reads the data, so that XML and JSON have the same values. What the schema
does not have is named with its path. Document types are refused, and so there are no entities but
the five predefined ones.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from xml.parsers import expat

from penstockd.budget import check_budget
from penstockd.catalog.model import Field, Kind
from penstockd.catalog.scalars import ValueRefused
from penstockd.catalog.values import load_json
from penstockd.errors import RequestMalformed, RequestTooLarge
from penstockd.formats.xml_tree import XmlNode, node_of
from penstockd.policy.view import View
from penstockd.rpc.rest.problems import Problems, join_path

#: Nested elements, including the root.
DEPTH_LIMIT = 100
#: The most elements of a body: each costs memory.
MOST_NODES = 1_000_000
_SHOWN = 80  # characters of a name in messages
_ENCODINGS = ("utf-8", "us-ascii")
_SCHEMA = "http://www.w3.org/2001/XMLSchema-instance "
#: How an element says that its field is null, which exports say by leaving it out.
_NIL = (f"{_SCHEMA}nil", "true")
#: Where a validator finds the schema.
_LOCATIONS = (f"{_SCHEMA}schemaLocation", f"{_SCHEMA}noNamespaceSchemaLocation")
#: The most bytes of a namespace's name, and declarations of a document: names repeat the former.
_NAMESPACE_BYTES, _NAMESPACES = 200, 100
#: The most attributes of an element.
_ATTRIBUTES = 100
_STRUCT = XmlNode("struct")
#: A field that the caller may not write: the command refuses it, whatever it holds.
_OPAQUE = XmlNode("opaque")
_BOOLS: Mapping[str, Any] = {"true": True, "false": False}


class XmlRecords:
    """Reads documents with records of a dataset, of which a View shows the fields. Made by
    ``View.prepared``."""

    def __init__(self, view: View) -> None:
        self._singular, self._plural = view.dataset.singular, view.dataset.name
        self._node = _message_node(view, view.fields(), 0)

    def read_one(self, data: bytes, problems: Problems) -> Any:
        """The members of a document that is one record. Raises RequestMalformed and
        RequestTooLarge."""
        root = _Element(self._node, "")
        _parse_document(data, _Document(self._singular, root, problems))
        return root.held

    def read_many(self, data: bytes, problems: Problems) -> Any:
        """The members of a request whose document is a list of records, as exports are. Raises as
        ``read_one`` does."""
        root = _Element(XmlNode("list", self._node), self._plural, item=self._singular)
        _parse_document(data, _Document(self._plural, root, problems))
        return {self._plural: root.held}


@dataclass(slots=True)
class _Element:
    """An element that is open: where it stands, and what it holds so far."""

    node: XmlNode
    path: str
    #: Its name in the object above, or the key of an entry in a map.
    name: str = ""
    null: bool = False
    #: The name of the elements within it, if it is a list or map.
    item: str = "item"
    held: Any = field(init=False)
    #: The names of its members so far.
    given: set[str] = field(default_factory=set)
    pieces: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.held = [] if self.node.kind == "list" else {}
        if self.node.kind == "map":
            self.item = "entry"

    def value(self) -> Any:
        """What JSON has in its place. Raises ValueRefused."""
        kind, text = self.node.kind, "".join(self.pieces)
        if self.null:
            if text or self.held:
                raise ValueRefused("is null, but holds something")
            return None
        if kind == "struct":
            return load_json(text)
        if kind == "opaque":
            return ""
        if kind == "bool":
            return _BOOLS.get(text, text)
        return text if kind == "text" else self.held


class _Document:
    """One document on its way in."""

    def __init__(self, name: str, root: _Element, problems: Problems) -> None:
        """``name`` is that of the root."""
        self._name, self._root, self._problems = name, root, problems
        self._open: list[_Element] = []
        self._depth = self._namespaces = 0
        self._skip = 0  # depth of an element that is skipped with all its content

    def declare(self, _: str | None, namespace: str | None) -> None:
        """A namespace is declared."""
        self._namespaces += 1
        if self._namespaces > _NAMESPACES or len(namespace or "") > _NAMESPACE_BYTES:
            raise RequestTooLarge(
                f"the body declares more than {_NAMESPACES} namespaces, or one of more than"
                f" {_NAMESPACE_BYTES} characters"
            )

    def start(self, name: str, attributes: Sequence[str]) -> None:
        """An element begins."""
        check_budget()
        self._depth += 1
        if len(attributes) > 2 * _ATTRIBUTES:
            raise RequestTooLarge(f"an element of the body has more than {_ATTRIBUTES} attributes")
        if self._depth > DEPTH_LIMIT:
            raise RequestMalformed(f"the body is nested deeper than {DEPTH_LIMIT} elements")
        if self._skip:
            return
        pairs = dict(zip(attributes[::2], attributes[1::2], strict=True))
        if not self._open:
            self._begin(name, pairs)
        elif self._open[-1].node.kind == "opaque":
            pass
        elif self._open[-1].node.kind == "message":
            self._enter_member(self._open[-1], name, pairs)
        else:
            self._enter_item(self._open[-1], name, pairs)
        if len(self._open) < self._depth:
            self._skip = self._depth

    def _begin(self, name: str, attributes: Mapping[str, str]) -> None:
        if name != self._name:
            raise RequestMalformed(
                f"the root element of the body is <{name[:_SHOWN]}>, not <{self._name}>"
            )
        self._refuse_attributes(self._root.path, attributes, _LOCATIONS)
        self._open.append(self._root)

    def _enter_member(self, above: _Element, name: str, attributes: Mapping[str, str]) -> None:
        at, below = join_path(above.path, name), above.node.members.get(name)
        if below is None:
            self._problems.unknown(at, above.node.members)
        elif name in above.given:
            self._problems.add(at, "is given twice")
        else:
            above.given.add(name)
            null = _NIL in attributes.items()
            if self._refuse_attributes(at, attributes, _NIL[:1] if null else ()):
                self._open.append(_Element(below, at, name, null))

    def _enter_item(self, above: _Element, name: str, attributes: Mapping[str, str]) -> None:
        """An element of a list or map; a value has none."""
        below, is_map = above.node.item, above.node.kind == "map"
        if below is None or name != above.item:
            wanted = "no elements" if below is None else f"<{above.item}>"
            self._problems.add(above.path, f"holds <{name[:_SHOWN]}>; it may hold {wanted}")
        elif is_map and "key" not in attributes:
            self._problems.add(above.path, "holds an <entry> without a key")
        else:
            key = attributes["key"] if is_map else ""
            at = f"{above.path}[{repr(key[:40]) if is_map else len(above.held)}]"
            if is_map and key in above.given:
                self._problems.add(at, "is given twice")
            elif self._refuse_attributes(at, attributes, ("key",) if is_map else ()):
                above.given.add(key)
                self._open.append(_Element(below, at, key))

    def _refuse_attributes(
        self, path: str, attributes: Mapping[str, str], known: Collection[str]
    ) -> bool:
        """Note attributes that are not known; returns whether there are none."""
        others = [name for name in attributes if name not in known]
        for name in others:
            self._problems.add(path, f"has an attribute '{name.rpartition(' ')[2][:_SHOWN]}'")
        return not others

    def text(self, text: str) -> None:
        """Text within the current element."""
        if self._skip or not self._open:
            return
        element = self._open[-1]
        if element.node.kind in ("text", "bool", "struct"):
            element.pieces.append(text)
        elif element.node.kind != "opaque" and not text.isspace():
            self._problems.add(element.path, "has text beside its elements")
            self._skip = self._depth

    def end(self, _: str) -> None:
        """The current element ends."""
        depth, self._depth = self._depth, self._depth - 1
        if self._skip and depth > self._skip:
            return
        refused, self._skip = bool(self._skip), 0
        if len(self._open) < depth:
            return  # it was refused where it began
        element = self._open.pop()
        if self._open and not refused:
            self._keep(element, self._open[-1])

    def _keep(self, element: _Element, above: _Element) -> None:
        """Put an element that is complete into the one above."""
        try:
            value = element.value()
        except ValueRefused as refused:
            self._problems.add(element.path, refused.reason)
            return
        if above.node.kind == "list":
            above.held.append(value)
        else:
            above.held[element.name] = value


def _message_node(view: View, fields: Sequence[Field], depth: int) -> XmlNode:
    """The node of a record, or of a message within it."""
    node = XmlNode("message")
    below: dict[str, list[Field]] = {}
    for each in fields:
        if len(each.steps) > depth + 1:
            below.setdefault(each.steps[depth], []).append(each)
        else:
            node.members[each.steps[depth]] = _leaf_node(view, each)
    for name, members in below.items():
        node.members[name] = _message_node(view, members, depth + 1)
    return node


def _leaf_node(view: View, field: Field) -> XmlNode:
    if field.repeated and not view.is_whole(field):
        return _OPAQUE  # of its members some may be hidden, and no fault names those
    if field.kind is Kind.STRUCT:
        return _STRUCT
    if field.repeated:
        return node_of(field)
    return XmlNode("bool" if field.kind is Kind.BOOL else "text")


def _parse_document(data: bytes, document: _Document) -> None:
    if not data.strip():
        raise RequestMalformed("the body is empty; it must be an XML document")
    if data.count(b"<") - data.count(b"</") > MOST_NODES:
        raise RequestTooLarge("the body has too many elements; use an import")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in data[:4]:
        raise RequestMalformed("the body must be in UTF-8, not UTF-16")
    # Names are not interned: with long namespaces each would be kept for good.
    parser = expat.ParserCreate(None, " ", None)
    parser.buffer_text = parser.ordered_attributes = True
    parser.StartElementHandler, parser.EndElementHandler = document.start, document.end
    parser.CharacterDataHandler = document.text
    parser.StartDoctypeDeclHandler = _refuse_doctype
    parser.StartNamespaceDeclHandler = document.declare
    parser.XmlDeclHandler = _check_declaration
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        what = expat.errors.messages[error.code]
        place = f"line {error.lineno}, column {error.offset + 1}"
        raise RequestMalformed(f"the body is not well-formed XML: {what} at {place}") from None


def _refuse_doctype(*_: object) -> None:
    raise RequestMalformed("the body declares a document type, which is not accepted")


def _check_declaration(_: str, encoding: str | None, __: int) -> None:
    if encoding is not None and encoding.lower() not in _ENCODINGS:
        raise RequestMalformed(f"the body must be in UTF-8, not {encoding[:40]}")
