"""What messages are made of: records as exports write them, in documents of JSON or XML."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from penstockd.catalog.record_json import ColumnsJson
from penstockd.formats.record_xml import XML_DECLARATION, RecordXml, xml_of
from penstockd.policy.lens import Lens
from penstockd.policy.rendering import record_json
from penstockd.shapes.lens import ShapedLens
from penstockd.webhooks.model import Body


class RecordWriter:
    """Writes the records that a lens shows, as exports do."""

    def __init__(self, sight: Lens) -> None:
        self._parse = sight.dataset.message_class.FromString
        self._json = record_json(sight.view, sight.fields)
        self._xml = RecordXml(sight.dataset, sight.fields)

    def json(self, key: str, image: bytes) -> orjson.Fragment:
        """The projected image of the record with a key, for a document in JSON."""
        return orjson.Fragment(self._json.encode(self._parse(image)))

    def xml(self, key: str, image: bytes) -> Xml:
        """The same for a document in XML."""
        return Xml(self._xml.encode(self._json.encode(self._parse(image))))


class ShapedWriter:
    """Writes records in the columns of a shape, as exports do."""

    def __init__(self, sight: ShapedLens) -> None:
        self._sight = sight
        fields = [column.field for column in sight.shaped.columns]
        self._json, self._xml = ColumnsJson(fields), RecordXml(sight.dataset, fields)

    def json(self, key: str, image: bytes) -> orjson.Fragment:
        """A projected image, for a document in JSON. Raises what ``ShapedLens.values`` raises."""
        return orjson.Fragment(self._json.encode(self._sight.values(key, image)))

    def xml(self, key: str, image: bytes) -> Xml:
        """The same for a document in XML."""
        return Xml(self._xml.encode(self._json.encode(self._sight.values(key, image))))


class Xml(str):
    """Text that is already XML."""


def make_writer(sight: Lens) -> RecordWriter | ShapedWriter:
    """The writer of what a lens shows."""
    return ShapedWriter(sight) if isinstance(sight, ShapedLens) else RecordWriter(sight)


def encode_document(document: Mapping[str, Any], body: Body) -> bytes:
    """A document as the body of a message."""
    if body is Body.JSON:
        return orjson.dumps(document)
    root = "webhook" if "type" in document and "data" in document else "data"
    return f"{XML_DECLARATION}\n<{root}>{_xml_value(document)}</{root}>".encode()


def _xml_value(value: Any) -> str:
    if isinstance(value, Xml):
        return value
    if isinstance(value, Mapping):
        return "".join(f"<{n}>{_xml_value(v)}</{n}>" for n, v in value.items())
    if isinstance(value, list):
        return "".join(f"<item>{_xml_value(v)}</item>" for v in value)
    return xml_of(value)
