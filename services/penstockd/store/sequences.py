"""Numbers of the log as readers are shown them: in the same order, but not to be counted by.

A number of the log counts all changes, those too that a reader must not know of. So readers get its
``sequence``: a number that rises with it and skips as nobody can foresee without the key. A tree
over the numbers parts the range of sequences: of the range of a node its lower half takes a share
that the key decides, between a quarter and three quarters. Gaps are therefore uneven near by and
far off alike, and within its own gap a number stands wherever the key puts it.

What remains: two sequences tell which was first, and a long stretch of them how much was written
there, within a factor of about three: of guesses by a stretch of the same length beside it half are
wrong by more than a half, and one in ten by more than 2.5 times. README says so to operators.

``transaction`` names a transaction by a number that tells nothing, not even the order.

Both are functions of the key and the number alone: the same in every process, after a restart and
after a restore. The key must never change, since sequences of before would no longer be smaller.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence
from functools import lru_cache

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

#: Each tree has 2**32 numbers and so much room that sequences of numbers below 2**40 are below
#: 2**53, which every JSON reader holds exactly. Of numbers there are 2**50.
_DEPTH, _RANGE = 32, 45
#: The least room of a number: gaps do not close up, wherever the key puts them.
_ROOM = 2
#: So many numbers are looked up together: they are the leaves below one node.
_CHUNK = 8
_CHUNKS, _NODES = 1024, 4096
_MASK = (1 << 63) - 1
#: The number of the highest chunk; beyond it there are no sequences of 63 bits.
_LAST = (1 << (63 - _RANGE + _DEPTH)) - 1
# Kinds of what the key is asked for: they are never the same block.
_SPLIT, _PLACE, _TRANSACTION = 0, 1, 2
_BITS = 32


class Sequences:
    """Sequences and names of transactions under a key of 32 bytes."""

    def __init__(self, key: bytes) -> None:
        # Single blocks, none of them twice for two uses: a pseudorandom function, not a cipher.
        self._block = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
        self._chunk = lru_cache(maxsize=_CHUNKS)(self._read_chunk)
        self._node = lru_cache(maxsize=_NODES)(self._read_node)

    def sequence(self, number: int) -> int:
        """The sequence of a number of the log, at least the number itself."""
        return self._chunk(number >> _CHUNK)[0][number & ((1 << _CHUNK) - 1)]

    def transaction(self, number: int) -> int:
        """What names the transaction whose last change has the number: 63 bits, without order."""
        return self._chunk(number >> _CHUNK)[1][number & ((1 << _CHUNK) - 1)]

    def _read_chunk(self, chunk: int) -> tuple[array[int], array[int]]:
        first, count = chunk << _CHUNK, 1 << _CHUNK
        if first < 0 or first + count - 1 > _LAST:
            raise ValueError(f"no log has a number {first}")
        low, high = self._node(_CHUNK, chunk)
        bounds = [low, high]
        # Of each level all nodes at once, from the chunk's down to the leaves.
        for height in range(_CHUNK, 0, -1):
            begin = first >> height
            shares = self._random(_SPLIT, height, begin, len(bounds) - 1)
            parted = [0] * (2 * len(bounds) - 1)
            parted[::2] = bounds
            parted[1::2] = _middles(bounds, height, shares)
            bounds = parted
        places = self._random(_PLACE, 0, first, count)
        sequences = array(
            "q", [a + p % (b - a) for a, b, p in zip(bounds, bounds[1:], places, strict=False)]
        )
        names = self._random(_TRANSACTION, 0, first, count)
        return sequences, array("q", [name & _MASK for name in names])

    def _read_node(self, height: int, index: int) -> tuple[int, int]:
        """The range of a node: the ``index``-th of those that hold 2**height numbers."""
        if height == _DEPTH:
            return index << _RANGE, (index + 1) << _RANGE
        low, high = self._node(height + 1, index >> 1)
        (share,) = self._random(_SPLIT, height + 1, index >> 1, 1)
        (middle,) = _middles((low, high), height + 1, (share,))
        return (middle, high) if index & 1 else (low, middle)

    def _random(self, kind: int, height: int, first: int, count: int) -> array[int]:
        """64 bits each for ``count`` places behind each other."""
        blocks = array("Q", [kind << 8 | height]) * (2 * count)
        blocks[1::2] = array("Q", range(first, first + count))
        if sys.byteorder == "little":
            blocks.byteswap()
        found = array("Q", self._block.update(blocks.tobytes()))
        return found[::2]


def _middles(bounds: Sequence[int], height: int, shares: Sequence[int]) -> list[int]:
    """Where the ranges between bounds part: each half keeps room for all of its numbers."""
    least = _ROOM << (height - 1)
    # All in one expression, for this is half of what a sequence costs.
    return [
        low
        + min(
            max(
                ((width := high - low) >> 2) + ((width >> 1) * (share >> (64 - _BITS)) >> _BITS),
                least,
            ),
            width - least,
        )
        for low, high, share in zip(bounds, bounds[1:], shares, strict=False)
    ]
