"""One record as JSON data or as an XML element, written as in exports."""

from __future__ import annotations

import base64
import datetime as dt
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import orjson

from penstockd.catalog import Dataset, Field, Kind
from penstockd.catalog.record import Codec
from penstockd.catalog.structs import parse_struct
from penstockd.floats import name_odd_float

Convert = Callable[[Any], Any]

#: Characters that XML 1.0 cannot hold; U+FFFD replaces them.
_NOT_XML = {c: 0xFFFD for c in (*range(9), 11, 12, *range(14, 32), 0xFFFE, 0xFFFF)}


class RecordWriter:
    """Writes records of a dataset, reduced to ``fields``."""

    def __init__(self, dataset: Dataset, fields: Sequence[Field]) -> None:
        self._dataset, self._codec = dataset, Codec(dataset, fields)
        self._parse = dataset.message_class.FromString
        self._converts = [_make_convert(f) for f in fields]
        self._json = [f.json_steps for f in fields]
        self._xml = [f.steps for f in fields]

    def json(self, image: bytes) -> dict[str, Any]:
        """A serialised record as JSON data, without unset fields."""
        return self._tree(image, self._json)

    def xml(self, image: bytes) -> str:
        """A serialised record as an element, as in XML exports."""
        name = self._dataset.singular
        return f"<{name}>{xml_of(self._tree(image, self._xml))}</{name}>"

    def _tree(self, image: bytes, places: Sequence[tuple[str, ...]]) -> dict[str, Any]:
        tree: dict[str, Any] = {}
        row = self._codec.row(self._parse(image))
        for value, convert, steps in zip(row, self._converts, places, strict=True):
            if value is None:
                continue
            holder = tree
            for step in steps[:-1]:
                holder = holder.setdefault(step, {})
            holder[steps[-1]] = convert(value) if convert is not None else value
        return tree


def xml_of(value: Any) -> str:
    """JSON data as the content of an element: lists become items, maps become members."""
    if isinstance(value, StructData):
        return escape(orjson.dumps(value).decode())
    if isinstance(value, Mapping):
        return "".join(_xml_element(name, v) for name, v in value.items())
    if isinstance(value, list | tuple):
        return "".join(f"<item>{xml_of(v)}</item>" for v in value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else escape(str(value).translate(_NOT_XML))


def time_text(moment: dt.datetime) -> str:
    """RFC 3339 in UTC with microseconds."""
    return moment.astimezone(dt.UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


class Entries(dict[str, Any]):
    """A map field, which XML writes as entries with keys."""


class StructData(dict[str, Any]):
    """A Struct, which XML writes as JSON."""


def _xml_element(name: str, value: Any) -> str:
    if isinstance(value, Entries):
        inner = "".join(
            f"<entry key={quoteattr(str(k).translate(_NOT_XML))}>{xml_of(v)}</entry>"
            for k, v in value.items()
        )
        return f"<{name}>{inner}</{name}>"
    return f"<{name}>{xml_of(value)}</{name}>"


def _make_convert(field: Field) -> Convert | None:
    """A function that converts a value of ``Codec.row`` to JSON data; None if they are the same."""
    match field.kind:
        case Kind.INT64 | Kind.UINT64:
            return str
        case Kind.FLOAT | Kind.DOUBLE:
            return _json_number
        case Kind.BYTES:
            return lambda value: base64.b64encode(value).decode()
        case Kind.ENUM:
            assert field.enum_values is not None
            names = {number: name for name, number in reversed([*field.enum_values.items()])}
            return lambda value: names.get(value, value)
        case Kind.TIMESTAMP:
            return time_text
        case Kind.MAP:
            return Entries
        case Kind.STRUCT:
            return lambda value: StructData(parse_struct(value))
    return None


def _json_number(value: float) -> float | str:
    return value if math.isfinite(value) else name_odd_float(value)
