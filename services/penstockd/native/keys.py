"""Which keys an export gave out: a set that takes under three bytes a key and forgets none.

A key that was given out is always found in it. One that was not passes for one that was with a
probability of 2^-20 for each segment of 1,048,576 keys. ``src/keys.c`` makes the segments while
rows are encoded; this joins them and answers from them.
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
    """The keys of the rows that a writer has taken so far.

    It may be asked at any time, by another thread than the writer's too, and when an export has
    been cut off: then it holds all keys that were given out, and perhaps some of rows that were
    encoded and not sent. Encoded sets may be joined end to end: the result is their union. That,
    and that keys are hashed in one way for ever, is the format's promise. An empty set is no bytes.
    """

    def __init__(self) -> None:
        self.count = 0  #: keys of all segments so far, those that were drained among them
        self._segments: list[bytes] = []
        #: Makes whoever keeps keys that fill no segment yet add them.
        self.complete: Callable[[], None] = lambda: None

    def add(self, segment: bytes, count: int) -> None:
        """Append a segment of ``count`` keys, as the kernel codes it."""
        if count:
            self.count += count
            self._segments.append(segment)

    def encode(self) -> bytes:
        """The set, for ``contains``: all of it that was not drained."""
        self.complete()
        return b"".join(self._segments)

    def drain(self) -> list[bytes]:
        """The segments that are full, each a set of its own, which are forgotten here.

        For whoever stores the set of a large export piece by piece, so that it takes no memory.
        """
        ready, self._segments = self._segments, []
        return ready


def contains(data: bytes, key: str) -> bool:
    """Whether the key is in an encoded set; ValueError if the data is none."""
    hashed = _hash(key.encode())
    return any(_within(data, at, count, hashed) for at, count in _segments(data))


def count(data: bytes) -> int:
    """How many keys an encoded set holds; ValueError if the data is none."""
    return sum(number for _, number in _segments(data))


def _segments(data: bytes) -> Iterator[tuple[int, int]]:
    """Where the body of each segment stands, and its number of keys."""
    at = 0
    while at < len(data):
        if len(data) - at < _HEAD.size:
            raise ValueError("the set of keys is cut off")
        number, size = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        if size > len(data) - at or size < 4 * _buckets(number):
            raise ValueError("the set of keys is cut off")
        yield at, number
        at += size


def _buckets(number: int) -> int:
    return (number + (1 << _BUCKET) - 1) >> _BUCKET


def _within(data: bytes, at: int, number: int, hashed: int) -> bool:
    """Whether a hash is in the segment whose body is at ``at``: one bucket is read."""
    wanted = ((hashed >> 32) * number >> 32) << _RATE | hashed & _LOW
    bucket = wanted >> (_RATE + _BUCKET)
    ends = struct.unpack_from("<II" if bucket else "<I", data, at + 4 * max(bucket - 1, 0))
    start, end = ends if bucket else (0, *ends)
    bits = at + 4 * _buckets(number)
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


def _hash(key: bytes) -> int:
    """As ``keys.c`` hashes."""
    h = len(key)
    for at in range(0, len(key), 8):
        h = (h ^ int.from_bytes(key[at : at + 8], "little")) * 0x9E3779B97F4A7C15 & _ALL
        h ^= h >> 32
    h = (h ^ h >> 33) * 0xFF51AFD7ED558CCD & _ALL
    h = (h ^ h >> 33) * 0xC4CEB9FE1A85EC53 & _ALL
    return h ^ h >> 33
