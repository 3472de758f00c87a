"""The chain over a day's entries: each hash covers its entry and, by the previous hash, all before.

    hash(0) = SHA-256("penstock audit chain 1" || day || hash of the checkpoint it hangs from)
    hash(n) = SHA-256(hash(n - 1) || content(n))

The content of an entry is its row in PostgreSQL's binary form of a composite value: the number of
columns and, for each, its type, its length (-1 for NULL) and its bytes. No two rows share one, and
it can be computed from the values of a row: see ``content_of``. For ``keys``, which may be long, it
holds the SHA-256.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import struct
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

HASH_BYTES = 32

_GENESIS = b"penstock audit chain 1"
_EPOCH = dt.datetime(2000, 1, 1, tzinfo=dt.UTC)
_FIRST_DAY = dt.date(2000, 1, 1)


def _encode_bigint(value: int) -> bytes:
    return struct.pack(">q", value)


def _encode_text(value: str) -> bytes:
    return value.encode()


def _encode_timestamp(value: dt.datetime) -> bytes:
    since = value - _EPOCH
    return struct.pack(">q", (since.days * 86400 + since.seconds) * 1_000_000 + since.microseconds)


def _encode_date(value: dt.date) -> bytes:
    return struct.pack(">i", (value - _FIRST_DAY).days)


_BIGINT, _TEXT, _BYTEA = (20, _encode_bigint), (25, _encode_text), (17, bytes)
_Type = tuple[int, Callable[[Any], bytes]]

#: Every column of ``hub.audit_entry``: the number of its type in PostgreSQL, and its bytes.
COLUMNS: Mapping[str, _Type] = {
    "entry_id": _BIGINT,
    "day": (1082, _encode_date),
    "entry_time": (1184, _encode_timestamp),
    "txid": _TEXT,
    "phase": _TEXT,
    "request_id": _TEXT,
    "trace_id": _TEXT,
    "consumer_id": _TEXT,
    "credential_id": _TEXT,
    "policy_revision": _BIGINT,
    "method": _TEXT,
    "surface": _TEXT,
    "dataset": _TEXT,
    "record_key": _TEXT,
    "query": _TEXT,
    "shown": _BYTEA,
    "row_count": _BIGINT,
    "byte_count": _BIGINT,
    "receipt_id": _TEXT,
    "outcome": _TEXT,
    "peer": _TEXT,
    "low_key": _TEXT,
    "high_key": _TEXT,
    "keys": _BYTEA,
}
#: Columns whose content comes from an expression.
_EXPRESSIONS = {
    "txid": "e.txid::text",
    "query": "e.query::text",
    "keys": "pg_catalog.sha256(e.keys)",
}
#: The values of an entry ``e`` as in its content, in the order of COLUMNS.
VALUES = ", ".join(_EXPRESSIONS.get(name, f"e.{name}") for name in COLUMNS)
#: The content of an entry ``e`` in SQL.
CONTENT = f"pg_catalog.record_send(ROW({VALUES}))"


def content_of(values: Mapping[str, Any]) -> bytes:
    """The content of an entry from its values, as VALUES selects them. Raises KeyError."""
    parts = [struct.pack(">i", len(COLUMNS))]
    for name, (number, encode) in COLUMNS.items():
        value = values[name]
        if value is None:
            parts.append(struct.pack(">Ii", number, -1))
        else:
            data = encode(value)
            parts += (struct.pack(">Ii", number, len(data)), data)
    return b"".join(parts)


def start_chain(day: dt.date, anchor: bytes) -> bytes:
    """The start of a day's chain; ``anchor`` is the digest of a checkpoint, b"" without one."""
    return hashlib.sha256(_GENESIS + day.isoformat().encode() + anchor).digest()


def link_entry(previous: bytes, content: bytes) -> bytes:
    """The hash of an entry, from the previous hash."""
    return hashlib.sha256(previous + content).digest()


class Sealed(NamedTuple):
    """An entry in its place in a chain. ``content`` is None if the entry is missing."""

    sequence: int
    entry_id: int
    hash: bytes
    content: bytes | None
