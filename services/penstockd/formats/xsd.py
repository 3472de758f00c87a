"""The XML Schema of a dataset's exports in XML, derived from its fields."""

from __future__ import annotations

import itertools
from collections.abc import Container, Sequence
from typing import Any
from xml.etree import ElementTree

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from penstock.options.v1 import options_pb2
from penstockd.catalog.load import load_leaf
from penstockd.catalog.model import VALUE_MESSAGES, Dataset, Field, FieldClass, Kind
from penstockd.catalog.rules import Rules
from penstockd.formats.record_xml import XML_DECLARATION

_XS = "http://www.w3.org/2001/XMLSchema"
_PLAIN = {
    Kind.STRING: "xs:string",
    Kind.STRUCT: "xs:string",  # a JSON object
    Kind.INT32: "xs:int",
    Kind.INT64: "xs:long",
    Kind.UINT32: "xs:unsignedInt",
    Kind.UINT64: "xs:unsignedLong",
    Kind.BYTES: "xs:base64Binary",
    Kind.BOOL: "Boolean",
    Kind.FLOAT: "Float",
    Kind.DOUBLE: "Float",
    Kind.DATE: "Date",
    Kind.TIMESTAMP: "Timestamp",
}
#: Facets of a simple type, by name.
_Facets = tuple[tuple[str, str], ...]
#: Types that are narrower than those of XML Schema: base and pattern.
_PATTERNS = {
    "Boolean": ("xs:boolean", "true|false"),
    "Float": ("xs:string", r"NaN|-?Infinity|-?[0-9]+(\.[0-9]+)?([eE][+\-]?[0-9]+)?"),
    "Date": ("xs:date", r"[0-9]{4}-[0-9]{2}-[0-9]{2}"),
    "Timestamp": ("xs:dateTime", r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}\.[0-9]{6}Z"),
}

_KEY = {"name": "key", "type": "xs:string", "use": "required"}
_MANY = {"minOccurs": "0", "maxOccurs": "unbounded"}
_OPTIONAL = {"minOccurs": "0", "nillable": "true"}

Element = ElementTree.Element


def xml_schema(dataset: Dataset, fields: Sequence[Field], hidden: Container[Field] = ()) -> bytes:
    """The schema of documents that contain any of ``fields``, in any order.

    They lack the ``hidden`` members of repeated messages and maps. ``fields`` are in the dataset's
    order. Every element is optional, since an absent one is NULL and a caller may have chosen
    fields, and may say that it is null (``xsi:nil``); their documentation says which are required
    in a record that is written.
    """
    return _Schema(dataset, fields, hidden).document()


class _Schema:
    def __init__(self, dataset: Dataset, fields: Sequence[Field], hidden: Container[Field]) -> None:
        self._hidden, self._needs = hidden, Rules.of(dataset).needs
        self._root = Element("xs:schema", {"xmlns:xs": _XS, "elementFormDefault": "qualified"})
        self._messages: dict[str, Descriptor] = {}
        self._simples: dict[str, tuple[str, _Facets]] = {
            name: (base, (("pattern", pattern),)) for name, (base, pattern) in _PATTERNS.items()
        }
        _add_documentation(self._root, f"{dataset.title}. {dataset.description}".strip())
        root = ElementTree.SubElement(self._root, "xs:element", name=dataset.name)
        within = _add_element(_add_element(root, "complexType"), "sequence")
        record = _add_element(within, "element", name=dataset.singular, **_MANY)
        self._members(_add_element(_add_element(record, "complexType"), "all"), fields, 0)
        self._named_types()

    def document(self) -> bytes:
        """The schema as a file."""
        ElementTree.indent(self._root)
        text: bytes = ElementTree.tostring(self._root, "utf-8")
        return f"{XML_DECLARATION}\n".encode() + text + b"\n"

    def _members(self, parent: Element, fields: Sequence[Field], depth: int) -> None:
        for name, run in itertools.groupby(fields, lambda f: f.steps[depth]):
            members = list(run)
            element = _add_element(parent, "element", name=name, **_OPTIONAL)
            if len(members[0].steps) > depth + 1:
                self._members(
                    _add_element(_add_element(element, "complexType"), "all"), members, depth + 1
                )
            else:
                _add_documentation(element, self._describe(members[0]))
                self._value(element, members[0])

    def _describe(self, field: Field) -> str:
        """What a field means, and what a record that is written must have in it."""
        said, need = [field.description], self._needs.get(field.path)
        if need is not None and need.required:
            said.append("Required.")
        if need is not None and need.least:
            what = "item(s)" if field.repeated else "character(s)"
            said.append(f"At least {need.least} {what}.")
        return " ".join(said).strip()

    def _value(self, element: Element, field: Field) -> None:
        """Declare the content of a field's element."""
        if not field.repeated:
            element.set("type", self._simple(field))
            return
        within = _add_element(_add_element(element, "complexType"), "sequence")
        name = "entry" if field.kind is Kind.MAP else "item"
        item = _add_element(within, "element", name=name, **_MANY)
        if any(f in self._hidden for f in field.walk()):
            self._shown_members(item, field)
            return
        if field.element_message is not None:
            kind = self._message(field.element_message)
        else:
            assert field.element is not None
            kind = self._simple(field.element)
        if field.kind is Kind.LIST:
            item.set("type", kind)
            return
        content = "simpleContent" if field.element_message is None else "complexContent"
        extension = _add_element(
            _add_element(_add_element(item, "complexType"), content), "extension", base=kind
        )
        _add_element(extension, "attribute", **_KEY)

    def _shown_members(self, item: Element, field: Field) -> None:
        """Declare a separate type for a field's messages, since other fields may show more."""
        own = _add_element(item, "complexType")
        shown = [m for m in field.members if m not in self._hidden]
        self._members(_add_element(own, "all"), shown, len(field.steps))
        if field.kind is Kind.MAP:
            _add_element(own, "attribute", **_KEY)

    def _simple(self, field: Field) -> str:
        """The name of the type of a field's values."""
        facets: _Facets
        if field.kind is Kind.DECIMAL:
            precision = field.precision or 38
            name = f"Decimal.{precision}.{field.scale}"
            facets = (("totalDigits", str(precision)), ("fractionDigits", str(field.scale)))
            self._simples[name] = "xs:decimal", facets
            return name
        if field.kind is Kind.ENUM:
            facets = tuple(("enumeration", value) for value in field.enum_values or ())
            for name, known in self._simples.items():
                if known == ("xs:string", facets):
                    return name
            name = f"Enum.{field.path}"
            self._simples[name] = "xs:string", facets
            return name
        return _PLAIN[field.kind]

    def _message(self, message: Descriptor) -> str:
        """The name of the type of a message in a repeated field; messages may be recursive."""
        self._messages.setdefault(message.full_name, message)
        return _type_name(message)

    def _named_types(self) -> None:
        done: set[str] = set()
        while pending := [m for name, m in self._messages.items() if name not in done]:
            for message in pending:
                done.add(message.full_name)
                named = _add_element(self._root, "complexType", name=_type_name(message))
                members = _add_element(named, "all")
                for fd in message.fields:
                    element = _add_element(members, "element", name=fd.name, **_OPTIONAL)
                    self._member(element, fd)
        for name, (base, facets) in self._simples.items():
            simple = _add_element(self._root, "simpleType", name=name)
            restriction = _add_element(simple, "restriction", base=base)
            for facet, value in facets:
                _add_element(restriction, facet, value=value)

    def _member(self, element: Element, fd: FieldDescriptor) -> None:
        of = fd.message_type
        if of is not None and not fd.is_repeated and of.full_name not in VALUE_MESSAGES:
            element.set("type", self._message(of))
            return
        every: Any = fd.GetOptions()
        options = every.Extensions[options_pb2.field]
        public = FieldClass.PUBLIC
        self._value(element, load_leaf(fd, options, fd.name, fd.json_name, public, False, {}))


def _add_element(parent: Element, tag: str, **attributes: str) -> Element:
    return ElementTree.SubElement(parent, f"xs:{tag}", attributes)


def _add_documentation(element: Element, text: str) -> None:
    if text:
        note = _add_element(_add_element(element, "annotation"), "documentation")
        note.text = " ".join(text.split())


def _type_name(message: Descriptor) -> str:
    return message.full_name.removeprefix(f"{message.file.package}.")
