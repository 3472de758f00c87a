"""Records as data: the values that exports in JSON have, whatever shows them.

What is unset is None, in messages of lists and maps it is left out. Times have six digits of the
fraction, enums their labels, whole numbers of 64 bits are texts.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from typing import Any

from google.protobuf.message import Message

from penstock.client.canonical import round_single
from penstock.client.record import is_nested, is_struct, read_struct
from penstock.client.stubs import Descriptor, FieldDescriptor, enum_labels, field_options

_Read = Callable[[Any], Any]
_TIMESTAMP = "google.protobuf.Timestamp"


def to_dict(
    record: Message, paths: Iterable[str] = (), *, model_names: bool = False
) -> dict[str, Any]:
    """The data of a record; only the fields in ``paths`` if there are any.

    ``model_names`` keeps the names of the model, such as billing_address.
    """
    wanted = [tuple(path.strip().split(".")) for path in paths if path.strip()]
    whole = _make_form(record.DESCRIPTOR, model_names, False).read(record)
    return _prune_values(whole, record.DESCRIPTOR, wanted) if wanted else whole


def name_enums(data: Mapping[str, Any], message: Descriptor) -> dict[str, Any]:
    """Proto JSON with names of enum values where a record's data has their labels."""
    found = dict(data)
    for field in message.fields:
        value = found.get(field.json_name)
        if value is None or field.is_repeated:
            continue
        if field.enum_type is not None and value in (labels := enum_labels(field.enum_type)):
            found[field.json_name] = labels[value]
        elif is_nested(field):
            found[field.json_name] = name_enums(value, field.message_type)
    return found


def _prune_values(
    values: Mapping[str, Any], message: Descriptor, wanted: list[tuple[str, ...]]
) -> dict[str, Any]:
    kept = {}
    for field in message.fields:
        below = [w[1:] for w in wanted if w[0] in (field.name, field.json_name)]
        name = field.json_name if field.json_name in values else field.name
        if not below or name not in values:
            continue
        value = values[name]
        nested = [w for w in below if w]
        whole = value is None or len(nested) < len(below) or not is_nested(field)
        kept[name] = value if whole else _prune_values(value, field.message_type, nested)
    return kept


@cache
def _make_form(message: Descriptor, model_names: bool, within: bool) -> _DataForm:
    return _DataForm(message, model_names, within)


class _DataForm:
    """How messages of one type become data; ``within`` a list or map or not."""

    def __init__(self, message: Descriptor, model_names: bool, within: bool) -> None:
        self._within = within
        self._members: list[tuple[str, str, bool, _Read]] = []
        for field in message.fields:
            shown = field.name if model_names else field.json_name
            read = _make_read(field, model_names, within)
            self._members.append((shown, field.name, field.has_presence, read))

    def read(self, message: Any) -> dict[str, Any]:
        """The data of a message."""
        found = {
            shown: read(getattr(message, name)) if not presence or message.HasField(name) else None
            for shown, name, presence, read in self._members
        }
        if not self._within:
            return found
        return {shown: value for shown, value in found.items() if value is not None}


def _make_read(field: FieldDescriptor, model_names: bool, within: bool) -> _Read:
    if not field.is_repeated:
        return _make_value_read(field, model_names, within)
    message = field.message_type
    if message is None or not message.GetOptions().map_entry:
        item = _make_value_read(field, model_names, True)
        return lambda values: [item(v) for v in values]
    held = _make_value_read(message.fields_by_name["value"], model_names, True)
    return lambda values: {_key_text(k): held(v) for k, v in values.items()}


def _make_value_read(field: FieldDescriptor, model_names: bool, within: bool) -> _Read:
    if is_struct(field):
        return read_struct
    if field.message_type is not None and field.message_type.full_name == _TIMESTAMP:
        return lambda stamp: f"{stamp.ToDatetime().isoformat(timespec='microseconds')}Z"
    if field.message_type is not None:
        # Looked up at each call: messages may contain themselves.
        of = field.message_type
        read = _read_within if within else _read_nested
        return lambda message: read(message, of, model_names)
    if field.enum_type is not None:
        names = {n: label for label, n in reversed(enum_labels(field.enum_type).items())}
        return lambda number: names.get(number, number)
    return _make_scalar_read(field)


def _make_scalar_read(field: FieldDescriptor) -> _Read:
    match field.cpp_type:
        case field.CPPTYPE_INT64 | field.CPPTYPE_UINT64:
            return str
        case field.CPPTYPE_FLOAT:
            return lambda value: _read_number(round_single(value))
        case field.CPPTYPE_DOUBLE:
            return _read_number
        case field.CPPTYPE_STRING if field.type == field.TYPE_BYTES:
            return lambda value: base64.b64encode(value).decode()
    # A decimal, a date or an etag that is unset is an empty text in a message.
    empty = field_options(field).WhichOneof("encoding") is None and field.name != "etag"
    return (lambda value: value) if empty else (lambda value: value or None)


def _read_within(message: Any, of: Descriptor, model_names: bool) -> Any:
    return _make_form(of, model_names, True).read(message)


def _read_nested(message: Any, of: Descriptor, model_names: bool) -> Any:
    """A message in which nothing is set is None, as a whole."""
    found = _make_form(of, model_names, False).read(message)
    return None if all(value is None for value in found.values()) else found


def _read_number(value: float) -> float | str:
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def _key_text(key: Any) -> str:
    return ("true" if key else "false") if isinstance(key, bool) else str(key)
