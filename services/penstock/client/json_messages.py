"""Messages of proto JSON data, for the client and the server; it needs protobuf alone."""

from __future__ import annotations

from typing import Any, TypeVar

from google.protobuf import json_format
from google.protobuf.message import Message

M = TypeVar("M", bound=Message)

#: The largest FLOAT, and the number from which on nothing rounds to it.
_LARGEST, _BEYOND = 3.4028234663852886e38, 3.4028235677973366e38


def parse_message(data: dict[str, Any], kind: type[M]) -> M:
    """A message of JSON data. Raises ParseError.

    Every printer writes the largest FLOAT as 3.4028235e+38. Read as a number, that is slightly
    too large, and ``json_format`` refuses it; it accepts the same digits as text, even for a
    DOUBLE.
    """
    try:
        return json_format.ParseDict(data, kind())
    except json_format.ParseError:
        return json_format.ParseDict(_quote_largest(data), kind())


def _quote_largest(data: Any) -> Any:
    if isinstance(data, dict):
        return {name: _quote_largest(value) for name, value in data.items()}
    if isinstance(data, list):
        return [_quote_largest(value) for value in data]
    if isinstance(data, float) and _LARGEST < abs(data) < _BEYOND:
        return repr(data)
    return data
