"""The COPY stream within PostgreSQL's messages, cut into pieces, without an object for each row."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator

from penstockd.native.abi import Status
from penstockd.native.errors import FormatError
from penstockd.native.kernel import Kernel

_HEAD = struct.Struct(">ci")
_MOST = 64 << 10  # bytes of a message that is no CopyData


class CopyMessages:
    """Takes what a socket gives and gives out the stream in pieces of one size; by one thread.

    Messages other than CopyData are told to ``told`` by their kind and body, as they come.
    """

    def __init__(self, told: Callable[[bytes, bytes], None], size: int) -> None:
        self.size = size  #: bytes of the next piece
        self._told = told
        self._kernel = Kernel()
        self._kept = 0  # bytes of a message that is not whole, at the start of the space
        self._have = self._left = 0

    def space(self) -> memoryview:
        """Where the socket's next bytes are to be put; good until ``feed``."""
        return self._kernel.space()[self._kept :]

    def feed(self, count: int) -> Iterator[memoryview]:
        """The pieces that ``count`` bytes in ``space`` complete, each good until the next is asked
        for. Raises FormatError if they are no messages, and what ``told`` does."""
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
        """The bytes that make no whole piece."""
        have, self._have = self._have, 0
        return self._kernel.unframed(0, have)

    def _message(self, at: int, end: int) -> int:
        """Tell the message at a place of the space; its size, 0 if it is not whole yet."""
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
