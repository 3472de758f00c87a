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
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import accumulate
from operator import add, mod, sub

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

    def each(self, numbers: Iterable[int]) -> list[int]:
        """The sequences of log numbers, most of which are close to the one before."""
        found, current, values = list[int](), -1, array("q")
        for number in numbers:
            chunk = number >> _CHUNK
            if chunk != current:
                current, values = chunk, self._chunk(chunk)[0]
            found.append(values[number & ((1 << _CHUNK) - 1)])
        return found

    def transaction(self, number: int) -> int:
        """The name of the transaction whose last change has the number: 63 bits, unordered."""
        return self._chunk(number >> _CHUNK)[1][number & ((1 << _CHUNK) - 1)] & _MASK

    def _read_chunk(self, chunk: int) -> tuple[array[int], array[int]]:
        """The sequences of a chunk's numbers, and 64 bits each for the names."""
        first, count = chunk << _CHUNK, 1 << _CHUNK
        if first < 0 or first + count - 1 > _LAST:
            raise ValueError(f"no log has a number {first}")
        drawn = self._draw(*_CHUNK_BLOCKS, chunk)
        shares = _read_words("I", drawn)[1::4]
        low, high = self._node(_CHUNK, chunk)
        widths, at = [high - low], 0
        # All nodes of a level at once, from the chunk's level down to the leaves.
        for height in range(_CHUNK, 0, -1):
            lower = _split_widths(widths, height, shares[at : at + len(widths)])
            at += len(widths)
            parted = [0] * (2 * len(widths))
            parted[::2] = lower
            parted[1::2] = map(sub, widths, lower)
            widths = parted
        words = _read_words("Q", drawn)[::2]
        starts = accumulate(widths, initial=low)
        # The last start is the chunk's end, and is not a place.
        sequences = array("q", map(add, starts, map(mod, words[at : at + count], widths)))
        return sequences, words[at + count :]

    def _read_node(self, height: int, index: int) -> tuple[int, int]:
        """The range of a node: the ``index``-th of those that cover 2**height numbers."""
        if height == _DEPTH:
            return index << _RANGE, (index + 1) << _RANGE
        low, high = self._node(height + 1, index >> 1)
        block = (_SPLIT << 8 | height + 1) << 64 | index >> 1
        (share,) = _read_words("I", self._draw(block, 0, 1, 0))[1::4]
        (lower,) = _split_widths([high - low], height + 1, [share])
        middle = low + lower
        return (middle, high) if index & 1 else (low, middle)

    def _draw(self, blocks: int, steps: int, count: int, times: int) -> bytes:
        """16 bytes each for ``count`` blocks, the integers side by side in ``blocks`` plus
        ``times`` those in ``steps``: one operation for all."""
        joined = (blocks + times * steps).to_bytes(16 * count, "big")
        return self._block.update(joined)


def _chunk_blocks() -> tuple[int, int, int]:
    """The blocks of chunk 0, in the order of their use; how much each grows with the number of the
    chunk; and how many blocks there are. A block contains its use, its height and an index."""
    blocks, steps = list[int](), list[int]()
    uses = [(_SPLIT, height) for height in range(_CHUNK, 0, -1)]
    for kind, height in [*uses, (_PLACE, 0), (_TRANSACTION, 0)]:
        count = 1 << (_CHUNK - height)
        blocks += [(kind << 8 | height) << 64 | index for index in range(count)]
        steps += [count] * count
    return _join_blocks(blocks), _join_blocks(steps), len(blocks)


def _join_blocks(blocks: Sequence[int]) -> int:
    return int.from_bytes(b"".join([block.to_bytes(16, "big") for block in blocks]), "big")


_CHUNK_BLOCKS = _chunk_blocks()


def _read_words(code: str, drawn: bytes) -> array[int]:
    """Random bytes as little-endian integers."""
    found = array(code, drawn)
    if sys.byteorder == "big":
        found.byteswap()
    return found


def _split_widths(widths: Sequence[int], height: int, shares: Sequence[int]) -> list[int]:
    """The part of each node's width that its lower half gets; each half keeps room for all of its
    numbers."""
    least = _ROOM << (height - 1)
    lower = [
        (width >> 2) + ((width >> 1) * share >> _BITS)
        for width, share in zip(widths, shares, strict=True)
    ]
    if min(widths) >> 2 >= least:
        return lower
    return [min(max(half, least), width - least) for half, width in zip(lower, widths, strict=True)]
