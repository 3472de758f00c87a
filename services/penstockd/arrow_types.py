"""Types of Arrow columns, and the kinds of fields that accept them.

``formats.unpack`` uses this in a process of its own, which imports nothing else of the formats.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa

_WHOLE = ("INT32", "INT64", "UINT32", "UINT64")
_NUMBERS = (*_WHOLE, "DECIMAL", "FLOAT", "DOUBLE")
#: The kind of keys and references, which other tools store as whole numbers.
_KEY = "KEY"


def find_plain_type(found: Any) -> Any:
    """The type of the values behind extensions, dictionaries and runs."""
    while True:
        if isinstance(found, pa.BaseExtensionType):
            found = found.storage_type
        elif isinstance(found, pa.DictionaryType | pa.RunEndEncodedType):
            found = found.value_type
        else:
            return found


def is_text(t: Any) -> bool:
    """Whether values of a type are text."""
    is_ = pa.types
    return bool(is_.is_string(t) or is_.is_large_string(t) or is_.is_string_view(t))


def is_bytes(t: Any) -> bool:
    """Whether values of a type are bytes."""
    is_ = pa.types
    return bool(
        is_.is_binary(t)
        or is_.is_large_binary(t)
        or is_.is_binary_view(t)
        or (is_.is_fixed_size_binary(t) and not is_.is_decimal(t))
    )


def takes_type(kind: str, t: Any, *, zoned: bool = False) -> bool:
    """Whether a field of a kind takes values of an Arrow type; every field takes text.

    Times without a zone are taken only if the caller has said their zone (``zoned``).
    """
    is_ = pa.types
    if is_text(t) or is_.is_null(t):
        return True
    if is_bytes(t):
        return kind in ("STRING", _KEY, "ENUM", "BYTES", "LIST", "MAP", "STRUCT")
    if is_.is_integer(t):
        return kind in (*_NUMBERS, _KEY, "ENUM")
    if is_.is_floating(t):
        return kind in ("FLOAT", "DOUBLE", "DECIMAL")
    if is_.is_timestamp(t):
        return kind == "TIMESTAMP" and (zoned or t.tz is not None)
    if is_.is_map(t) or is_.is_nested(t):
        return kind in ("LIST", "MAP")
    return (
        (is_.is_boolean(t) and kind == "BOOL")
        or (is_.is_decimal(t) and kind in _NUMBERS)
        or (is_.is_date(t) and kind == "DATE")
    )


def find_family(t: Any) -> str:
    """The name of the group of types that a type belongs to; "nested" for all others."""
    is_ = pa.types
    names = ("boolean", "integer", "floating", "decimal", "date", "timestamp")
    return next((name for name in names if getattr(is_, "is_" + name)(t)), "nested")
