"""The keys that an export sent: a set that takes under three bytes per key and misses none.

A key that was sent is always found. A key that was not sent is wrongly found with a probability of
2^-20 for each segment of 1,048,576 keys. ``src/keys.c`` makes the segments while rows are encoded;
this module joins and queries them.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

from penstockd.native.abi import KEYS_BUCKET, KEYS_RATE

_RATE, _BUCKET = KEYS_RATE, KEYS_BUCKET
_LOW = (1 << _RATE) - 1
_ALL = (1 << 64) - 1
_HEAD = struct.Struct("<II")


class KeySet:
    """The keys of the records whose rows a writer has taken so far; those of consecutive rows of
    one record count once.

    It can be queried at any time and from any thread. After an export was cut off it holds all keys
    that were sent, and perhaps some of rows that were encoded but not sent. Encoded sets can be
    concatenated: the result is their union. The format guarantees that, and that the hash of keys
    never changes. An empty set encodes to no bytes.
    """

    def __init__(self) -> None:
        self.count = 0  #: keys of all segments so far, including drained ones
        self._segments: list[bytes] = []
        #: Makes the kernel add the keys that do not fill a segment yet.
        self.complete: Callable[[], None] = lambda: None

    def add(self, segment: bytes, count: int) -> None:
        """Append a segment of ``count`` keys, as the kernel encodes it."""
        if count:
            self.count += count
            self._segments.append(segment)

    def encode(self) -> bytes:
        """The set, for ``contains_key``, without drained segments."""
        self.complete()
        return b"".join(self._segments)

    def drain(self) -> list[bytes]:
        """Return and forget the full segments, each of which is a set.

        This allows storing the set of a large export piece by piece, so that it takes no memory.
        """
        ready, self._segments = self._segments, []
        return ready


def contains_key(data: bytes, key: str) -> bool:
    """Whether the key is in an encoded set; ValueError if the data is not a set."""
    hashed = _hash_key(key.encode())
    return any(_is_in_segment(data, at, count, hashed) for at, count in _iterate_segments(data))


def count_keys(data: bytes) -> int:
    """How many keys an encoded set holds; ValueError if the data is not a set."""
    return sum(number for _, number in _iterate_segments(data))


def _iterate_segments(data: bytes) -> Iterator[tuple[int, int]]:
    """The offset of each segment's body, and its number of keys."""
    at = 0
    while at < len(data):
        if len(data) - at < _HEAD.size:
            raise ValueError("the set of keys is cut off")
        number, size = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        if size > len(data) - at or size < 4 * _count_buckets(number):
            raise ValueError("the set of keys is cut off")
        yield at, number
        at += size


def _count_buckets(number: int) -> int:
    return (number + (1 << _BUCKET) - 1) >> _BUCKET


def _is_in_segment(data: bytes, at: int, number: int, hashed: int) -> bool:
    """Whether a hash is in the segment whose body is at ``at``; reads one bucket."""
    wanted = ((hashed >> 32) * number >> 32) << _RATE | hashed & _LOW
    bucket = wanted >> (_RATE + _BUCKET)
    ends = struct.unpack_from("<II" if bucket else "<I", data, at + 4 * max(bucket - 1, 0))
    start, end = ends if bucket else (0, *ends)
    bits = at + 4 * _count_buckets(number)
    held = int.from_bytes(data[bits + start // 8 : bits + (end + 7) // 8], "little")
    held, left = held >> start % 8, end - start
    value = bucket << (_RATE + _BUCKET)
    while left > 0 and value <= wanted:
        zeros = (held & -held).bit_length() - 1
        if zeros < 0:
            raise ValueError("the set of keys is damaged")
        held >>= zeros + 1
        value += zeros << _RATE | held & _LOW
        held >>= _RATE
        left -= zeros + 1 + _RATE
        if value == wanted:
            return True
    return False


def _hash_key(key: bytes) -> int:
    """The hash of ``keys.c``."""
    h = len(key)
    for at in range(0, len(key), 8):
        h = (h ^ int.from_bytes(key[at : at + 8], "little")) * 0x9E3779B97F4A7C15 & _ALL
        h ^= h >> 32
    h = (h ^ h >> 33) * 0xFF51AFD7ED558CCD & _ALL
    h = (h ^ h >> 33) * 0xC4CEB9FE1A85EC53 & _ALL
    return h ^ h >> 33
