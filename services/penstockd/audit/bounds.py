"""How much of a caller's input an audit entry keeps, in bytes of UTF-8."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import orjson

#: The longest key of a record, and so the longest in an index of the audit.
KEY_BYTES = 512
#: The most bytes of the mark that shows that a text was cut.
MARK_BYTES = 64
#: The most bytes of each text of an entry, at least MARK_BYTES; texts that the hub makes are
#: shorter.
TEXT_BYTES: Mapping[str, int] = {
    "request_id": 64,
    "trace_id": 64,
    "consumer_id": 128,
    "credential_id": 128,
    "method": 256,
    "surface": 64,
    "dataset": 128,
    "record_key": 600,
    "receipt_id": 80,
    "outcome": 64,
    "peer": 256,
}
#: The most bytes of a caller's query, in JSON.
QUERY_BYTES = 16 * 1024
#: For a query that is too long: bytes of each text and elements of each list, tried in order.
_STEPS = ((4096, 100), (1024, 50), (256, 20), (64, 5))


def bounded_text(text: str, most: int) -> str:
    """The text in at most ``most`` bytes; a longer one as its beginning, its length and its digest.

    U+0000, which the store cannot hold, becomes U+FFFD.
    """
    text = text.replace("\0", "\ufffd")
    data = text.encode("utf-8", "replace")
    if len(data) <= most:
        return data.decode()
    mark = f"… [cut: {len(data)} bytes, SHA-256 {hashlib.sha256(data).hexdigest()[:16]}]"
    return data[: most - len(mark.encode())].decode("utf-8", "ignore") + mark


def query_text(query: Mapping[str, Any]) -> str:
    """A caller's query as JSON of at most QUERY_BYTES, its values cut if necessary."""
    data = orjson.dumps(query)
    for size, count in _STEPS:
        if len(data) <= QUERY_BYTES:
            break
        data = orjson.dumps(_cut_value(query, size, count))
    else:
        data = data if len(data) <= QUERY_BYTES else orjson.dumps({"cut": f"{len(data)} bytes"})
    return data.decode().replace("\\u0000", "\\ufffd")


def bounded_json(text: str) -> str:
    """Shorten JSON to at most QUERY_BYTES."""
    return text if len(text.encode()) <= QUERY_BYTES else query_text(orjson.loads(text))


def _cut_value(value: Any, size: int, count: int) -> Any:
    match value:
        case str():
            return bounded_text(value, size)
        case list() | tuple():
            mark = [f"… [cut: {len(value)} elements]"] if len(value) > count else []
            return [*(_cut_value(v, size, count) for v in value[:count]), *mark]
        case dict():
            names = list(value)[:count]
            kept = {bounded_text(str(n), size): _cut_value(value[n], size, count) for n in names}
            return kept | ({"…": f"[cut: {len(value)} names]"} if len(value) > count else {})
        case _:
            return value
