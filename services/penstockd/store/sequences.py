"""Log numbers as readers see them: in the same order, but useless for counting changes.

A log number counts all changes, including those that a reader must not know of. So readers get its
``sequence``: a number that rises with it, with gaps that nobody can predict without the key. A tree
over the numbers divides the range of sequences: the lower half of a node takes a share of the
node's range that the key decides, between a quarter and three quarters. Gaps are therefore uneven
at every scale, and the key also decides where in its gap a number stands.

What remains visible: two sequences reveal which was first, and a long stretch of them how much was
written there, within a factor of about three: half of all guesses from a neighbouring stretch of
the same length are wrong by more than a half, and one in ten by more than 2.5 times. The README
tells operators so.

``transaction`` names a transaction by a number that reveals nothing, not even the order.

Both are functions of the key and the number alone: the same in every process, after a restart and
after a restore. The key must never change, since earlier sequences might no longer be smaller.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Sequence
from functools import lru_cache

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

#: Each tree covers 2**32 numbers, with a range such that numbers below 2**40 have sequences below
#: 2**53, which every JSON reader holds exactly. There are 2**50 numbers in all.
_DEPTH, _RANGE = 32, 45
#: The smallest gap of a number: no gap closes, whatever the key.
_ROOM = 2
#: 2**_CHUNK numbers are looked up together: the leaves below one node.
_CHUNK = 8
_CHUNKS, _NODES = 1024, 4096
_MASK = (1 << 63) - 1
#: The number of the highest chunk; beyond it there are no sequences of 63 bits.
_LAST = (1 << (63 - _RANGE + _DEPTH)) - 1
# What a block is used for; part of its input, so that two uses never share a block.
_SPLIT, _PLACE, _TRANSACTION = 0, 1, 2
_BITS = 32


class Sequences:
    """Sequences and names of transactions under a key of 32 bytes."""

    def __init__(self, key: bytes) -> None:
        # Single distinct blocks: AES serves as a pseudorandom function, not as a cipher.
        self._block = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
        self._chunk = lru_cache(maxsize=_CHUNKS)(self._read_chunk)
        self._node = lru_cache(maxsize=_NODES)(self._read_node)

    def sequence(self, number: int) -> int:
        """The sequence of a log number; at least the number itself."""
        return self._chunk(number >> _CHUNK)[0][number & ((1 << _CHUNK) - 1)]

    def transaction(self, number: int) -> int:
        """The name of the transaction whose last change has the number: 63 bits, unordered."""
        return self._chunk(number >> _CHUNK)[1][number & ((1 << _CHUNK) - 1)]

    def _read_chunk(self, chunk: int) -> tuple[array[int], array[int]]:
        first, count = chunk << _CHUNK, 1 << _CHUNK
        if first < 0 or first + count - 1 > _LAST:
            raise ValueError(f"no log has a number {first}")
        low, high = self._node(_CHUNK, chunk)
        bounds = [low, high]
        # All nodes of a level at once, from the chunk's level down to the leaves.
        for height in range(_CHUNK, 0, -1):
            begin = first >> height
            shares = self._random(_SPLIT, height, begin, len(bounds) - 1)
            parted = [0] * (2 * len(bounds) - 1)
            parted[::2] = bounds
            parted[1::2] = _split_bounds(bounds, height, shares)
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
        (middle,) = _split_bounds((low, high), height + 1, (share,))
        return (middle, high) if index & 1 else (low, middle)

    def _random(self, kind: int, height: int, first: int, count: int) -> array[int]:
        """64 bits each for ``count`` consecutive places."""
        blocks = array("Q", [kind << 8 | height]) * (2 * count)
        blocks[1::2] = array("Q", range(first, first + count))
        if sys.byteorder == "little":
            blocks.byteswap()
        found = array("Q", self._block.update(blocks.tobytes()))
        return found[::2]


def _split_bounds(bounds: Sequence[int], height: int, shares: Sequence[int]) -> list[int]:
    """Where each range between bounds divides: each half keeps room for all of its numbers."""
    least = _ROOM << (height - 1)
    # One expression, since this is half the cost of a sequence.
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
