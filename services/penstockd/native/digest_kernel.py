"""Calling the part of the kernel that digests records (``digest.c``)."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterator
from typing import NamedTuple

from penstockd.native.kernel import DONE, END, FULL, MALFORMED, Kernel

_MOST_ROWS = 8192  # digest.c: of one call
_TEXT = 256 << 10  # bytes in which canonical forms are laid out
_SLACK = 128
_SCRATCH = 64 << 10

__all__ = ["DONE", "END", "MALFORMED", "DigestKernel", "Digested"]


class Digested(NamedTuple):
    """What a call did: bytes consumed, rows, their digests (32 bytes each) end to end, where the
    key of each ends in ``keys`` (int32), the kernel's detail, its status."""

    consumed: int
    rows: int
    digests: bytes
    ends: memoryview[int]
    keys: bytes
    detail: int
    status: int


class DigestKernel(Kernel):
    """A kernel whose plan is ``native.digest.canonical_plan``'s."""

    def digest(self, data: bytes) -> Iterator[Digested]:
        """Digests the whole rows of COPY BINARY at the start of ``data``; the last ``status`` says
        whether more is needed (DONE), the stream ended (END) or broke (MALFORMED)."""
        digests = self._write(self._in, data)
        ends = digests + 32 * _MOST_ROWS + _SLACK
        keys = ends + 4 * _MOST_ROWS + _SLACK
        scratch = _aligned(keys + len(data) + _SLACK)
        scratch_room = 2 * len(data) + _SCRATCH
        target = _aligned(scratch + scratch_room + _SLACK)
        text = target + _SLACK
        room, start, size = _TEXT, self._in, len(data)
        while True:
            self._require(text + room + 2 * _SLACK)
            words = (digests, ends, keys, text, room, scratch, scratch_room)
            ctypes.memmove(self._address() + target, struct.pack("<7i", *words), 28)
            done = self._digest(start, size, target, digests, ends, keys)
            if done.rows or done.status != FULL:
                yield done
            if done.status != FULL:
                return
            start, size = start + done.consumed, size - done.consumed
            if not done.rows:
                room = max(done.detail, 0) or 1 << 30  # which is refused

    def _digest(
        self, start: int, size: int, target: int, digests: int, ends: int, keys: int
    ) -> Digested:
        with self._lock:
            status: int = self._function("digest")(self._store, self._plan, start, size, target)
            base = self._address()
            consumed, produced, rows, detail = (ctypes.c_int32 * 4).from_address(
                base + self._results
            )
            return Digested(
                consumed,
                rows,
                ctypes.string_at(base + digests, 32 * rows),
                memoryview(ctypes.string_at(base + ends, 4 * rows)).cast("i"),
                ctypes.string_at(base + keys, produced),
                detail,
                status,
            )


def _aligned(offset: int) -> int:
    return -(-offset // 64) * 64
