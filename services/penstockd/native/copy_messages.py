"""Extracts the COPY stream from PostgreSQL's messages, in pieces, without an object per row."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

from penstockd.native.abi import Status
from penstockd.native.errors import FormatError
from penstockd.native.kernel import Kernel

_HEAD = struct.Struct(">ci")
_MOST = 64 << 10  # the most bytes of a message other than CopyData


class CopyMessages:
    """Takes a socket's bytes and yields the stream in pieces of one size; for one thread.

    Every message other than CopyData is passed to ``told`` as it arrives, with its kind and body.
    """

    def __init__(self, told: Callable[[bytes, bytes], None], size: int) -> None:
        self.size = size  #: bytes of the next piece
        self._told = told
        self._kernel = Kernel()
        self._kept = 0  # bytes of an incomplete message, at the start of the space
        self._have = self._left = 0

    def space(self) -> memoryview:
        """Where to put the socket's next bytes; valid until ``feed``."""
        return self._kernel.space()[self._kept :]

    def feed(self, count: int) -> Iterator[memoryview]:
        """The pieces that ``count`` bytes in ``space`` complete, each valid until the next one.

        Raises FormatError if the bytes are not messages, and what ``told`` raises.
        """
        at, end, status = 0, self._kept + count, int(Status.END)
        while status == Status.END:
            step = self._kernel.unframe(at, end - at, self._have, self._left)
            at, self._have, self._left = at + step.consumed, self._have + step.produced, step.left
            status = step.status
            if status == Status.MALFORMED:
                raise FormatError("the database did not send messages")
            if status == Status.END:
                size = self._message(at, end)
                at, status = at + size, Status.END if size else Status.DONE
        self._kept = end - at
        if self._kept:
            space = self._kernel.space()
            space[: self._kept] = bytes(space[at:end])
        yield from self._pieces()

    def _pieces(self) -> Iterator[memoryview]:
        given = 0
        while self._have - given >= self.size:
            given, size = given + self.size, self.size
            yield self._kernel.unframed(given - size, size)
        if given:
            self._have -= given
            self._kernel.unframed(0, self._have)[:] = self._kernel.unframed(given, self._have)

    def rest(self) -> memoryview:
        """The remaining bytes, which do not fill a piece."""
        have, self._have = self._have, 0
        return self._kernel.unframed(0, have)

    def _message(self, at: int, end: int) -> int:
        """Pass on the message at a place of the space; return its size, or 0 if incomplete."""
        space = self._kernel.space()
        kind: bytes
        size: int
        kind, size = _HEAD.unpack_from(space, at)
        if not 4 <= size < _MOST:
            raise FormatError("the database did not send messages")
        after = at + 1 + size
        if after > end:
            return 0
        self._told(kind, bytes(space[at + _HEAD.size : after]))
        return after - at
