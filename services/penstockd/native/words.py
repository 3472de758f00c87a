"""Packs records of ``abi`` into words of little-endian int32, of which plans consist."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Any


def flatten_words(*records: tuple[Any, ...]) -> Iterator[int]:
    """The words of some records, end to end."""
    for record in records:
        for item in record:
            if isinstance(item, tuple):
                yield from flatten_words(item)
            else:
                yield item


def pack_words(words: Iterable[int]) -> bytes:
    """The bytes of words, as the kernel reads them."""
    listed = list(words)
    return struct.pack(f"<{len(listed)}i", *listed)
