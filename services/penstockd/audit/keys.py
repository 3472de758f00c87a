"""Which records a reply held: exact keys for a page, a compact set for a stream.

A page's keys are joined with NUL, which no key can contain, and compressed. A stream's are a
``native.keys`` set, which reports about one in a million unsent keys as sent.
"""

from __future__ import annotations

import enum
import zlib
from collections.abc import Sequence

from penstockd.native import keys as key_sets

_PAGE = b"P"
_SET = b"S"


class Certainty(enum.StrEnum):
    """How certain it is that a record was in a reply."""

    EXACT = "EXACT"
    PROBABLE = "PROBABLE"
    POSSIBLE = "POSSIBLE"


def page_keys(keys: Sequence[str]) -> bytes | None:
    """Encode the keys of a page; None for an empty page."""
    return _PAGE + zlib.compress("\0".join(keys).encode(), 1) if keys else None


def stream_keys(encoded: bytes) -> bytes | None:
    """Wrap the keys of a stream from ``KeySet.encode()``; None if there are none."""
    return _SET + encoded if encoded else None


def find_key(data: bytes, key: str) -> Certainty | None:
    """Whether the key is among them: EXACT, PROBABLE, or None. Raises ValueError if damaged."""
    if data[:1] == _PAGE:
        try:
            found = key in zlib.decompress(data[1:]).decode().split("\0")
        except zlib.error as exc:
            raise ValueError("the keys of a page are damaged") from exc
        return Certainty.EXACT if found else None
    if data[:1] == _SET:
        return Certainty.PROBABLE if key_sets.contains_key(data[1:], key) else None
    raise ValueError("keys in an unknown form")
