"""Calls the part of the kernel that digests records (``digest.c``)."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import NamedTuple

from penstockd.native.abi import DIGEST_MOST_ROWS, DigestTarget, Status
from penstockd.native.kernel import Kernel
from penstockd.native.words import pack_words

_TEXT = 256 << 10  # bytes for canonical forms
_SLACK = 128
_SCRATCH = 64 << 10


class Digested(NamedTuple):
    """The result of a call: bytes consumed, rows, their digests (32 bytes each) end to end, the end
    of each key in ``keys`` (int32), the kernel's detail, its status."""

    consumed: int
    rows: int
    digests: bytes
    ends: memoryview[int]
    keys: bytes
    detail: int
    status: int


class DigestKernel(Kernel):
    """A kernel whose plan comes from ``digest.canonical_plan``."""

    def digest(self, data: bytes) -> Iterator[Digested]:
        """Digest the complete rows of COPY BINARY at the start of ``data``.

        The last ``status`` is DONE if more data is needed, END if the stream ended, or MALFORMED.
        """
        digests = self._write(self.input_start, data)
        ends = digests + 32 * DIGEST_MOST_ROWS + _SLACK
        keys = ends + 4 * DIGEST_MOST_ROWS + _SLACK
        scratch = _align_offset(keys + len(data) + _SLACK)
        scratch_room = 2 * len(data) + _SCRATCH
        target = _align_offset(scratch + scratch_room + _SLACK)
        text = target + _SLACK
        room, start, size = _TEXT, self.input_start, len(data)
        while True:
            self._require(text + room + 2 * _SLACK)
            places = DigestTarget(digests, ends, keys, text, room, scratch, scratch_room)
            laid = pack_words(places)
            ctypes.memmove(self._address() + target, laid, len(laid))
            done = self._digest(start, size, target, digests, ends, keys)
            if done.rows or done.status != Status.FULL:
                yield done
            if done.status != Status.FULL:
                return
            start, size = start + done.consumed, size - done.consumed
            if not done.rows:
                room = max(done.detail, 0) or 1 << 30  # which _require refuses

    def _digest(
        self, start: int, size: int, target: int, digests: int, ends: int, keys: int
    ) -> Digested:
        with self._lock:
            status: int = self._function("digest")(self._store, self._plan, start, size, target)
            base, done = self._address(), self._result()
            return Digested(
                done.consumed,
                done.rows,
                ctypes.string_at(base + digests, 32 * done.rows),
                memoryview(ctypes.string_at(base + ends, 4 * done.rows)).cast("i"),
                ctypes.string_at(base + keys, done.produced),
                done.detail,
                status,
            )


def _align_offset(offset: int) -> int:
    return -(-offset // 64) * 64
