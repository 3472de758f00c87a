"""One record as an XML element, byte for byte as exports in XML have it.

It is made of the record's JSON, which has every value as a text already; exports do the same with
lists, maps and Structs (see ``src/encode.c``). Members that are null are left out.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from penstockd.catalog.model import VALUE_MESSAGES, Dataset, Field, Kind

XML_DECLARATION = '<?xml version="1.0" encoding="UTF-8"?>'
#: A value of the parsed JSON -> the content of its element.
Write = Callable[[Any], str]

#: Characters that XML cannot hold; U+FFFD replaces them.
_FORBIDDEN = dict.fromkeys((*range(9), 11, 12, *range(14, 32), 0xFFFE, 0xFFFF), "\ufffd")
_IN_TEXT = {**_FORBIDDEN, **str.maketrans({"<": "&lt;", ">": "&gt;", "&": "&amp;", "\r": "&#13;"})}
_IN_ITEM = {**_IN_TEXT, ord('"'): "&quot;"}
_IN_KEY = {**_IN_ITEM, **str.maketrans({"\n": "&#10;", "\t": "&#9;"})}


class RecordXml:
    """Makes XML of what ``RecordJson`` writes for a dataset's records, reduced to ``fields``."""

    def __init__(self, dataset: Dataset, fields: Sequence[Field]) -> None:
        self._name = dataset.singular
        self._content = _record_writer(fields, 0)
        self._parse = json.JSONDecoder(parse_int=_Number, parse_float=_Number).decode

    def encode(self, record: bytes) -> str:
        """The element of a record in JSON."""
        return f"<{self._name}>{self._content(self._parse(record.decode()))}</{self._name}>"


def xml_of(value: Any) -> str:
    """JSON data without a schema as the content of an element: lists become items, objects become
    members."""
    if isinstance(value, Mapping):
        return "".join(f"<{name}>{xml_of(v)}</{name}>" for name, v in value.items())
    if isinstance(value, list | tuple):
        return "".join(f"<item>{xml_of(v)}</item>" for v in value)
    return _write_text(value)


class _Number(str):
    """A number of the JSON, as it is written there."""


def _write_text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return "" if value is None else str(value).translate(_IN_TEXT)


def _write_item(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value).translate(_IN_ITEM)


def _write_struct(value: Any) -> str:
    return _struct_text(value).translate(_IN_TEXT)


def _struct_text(value: Any) -> str:
    """A Struct as the store prints its jsonb (see ``element_json``)."""
    if isinstance(value, dict):
        pairs = (f"{_struct_text(n)}: {_struct_text(v)}" for n, v in value.items())
        return "{" + ", ".join(pairs) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_struct_text, value)) + "]"
    return value if isinstance(value, _Number) else orjson.dumps(value).decode()


# --- writers ---


def _record_writer(fields: Sequence[Field], depth: int) -> Write:
    """The writer of a record, or of a message within it."""
    members: dict[str, tuple[str, Write]] = {}
    for name, found in itertools.groupby(fields, lambda f: f.json_steps[depth]):
        run = list(found)
        nested = len(run[0].steps) > depth + 1
        write = _record_writer(run, depth + 1) if nested else _leaf_writer(run[0])
        members[name] = (run[0].steps[depth], write)
    return _message_writer(members)


def _leaf_writer(field: Field) -> Write:
    if field.kind is Kind.STRUCT:
        return _write_struct
    if not field.repeated:
        return _write_text
    of = field.element_message
    item = _element_writer(of, {}) if of is not None else _write_item
    return _make_map_writer(item) if field.kind is Kind.MAP else _make_list_writer(item)


def _element_writer(message: Descriptor, known: dict[str, Write]) -> Write:
    """The writer of a message in a list or map. Each is made once, since a message may contain
    itself."""
    if message.full_name not in known:
        members: dict[str, tuple[str, Write]] = {}
        known[message.full_name] = _message_writer(members)
        for fd in message.fields:
            members[fd.json_name] = (fd.name, _member_writer(fd, known))
    return known[message.full_name]


def _member_writer(fd: FieldDescriptor, known: dict[str, Write]) -> Write:
    of, is_map = fd.message_type, False
    if of is not None and of.GetOptions().map_entry:
        of, is_map = of.fields_by_name["value"].message_type, True
    plain = of is None or of.full_name in VALUE_MESSAGES
    item = _write_item if of is None or plain else _element_writer(of, known)
    if is_map:
        return _make_map_writer(item)
    return _make_list_writer(item) if fd.is_repeated else item


def _message_writer(members: Mapping[str, tuple[str, Write]]) -> Write:
    def write(message: Any) -> str:
        parts = []
        for json_name, value in message.items():
            if value is not None:
                name, content = members[json_name]
                parts.append(f"<{name}>{content(value)}</{name}>")
        return "".join(parts)

    return write


def _make_list_writer(item: Write) -> Write:
    return lambda values: "".join([f"<item>{item(v)}</item>" for v in values])


def _make_map_writer(item: Write) -> Write:
    return lambda held: "".join(
        [f'<entry key="{k.translate(_IN_KEY)}">{item(v)}</entry>' for k, v in held.items()]
    )
