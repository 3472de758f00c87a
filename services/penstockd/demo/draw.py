"""Randomness that is cheap and the same everywhere: bytes from a seed, and pools to pick from.

A row takes a fixed number of random bytes and uses each as an index into a pool of 256 ready
pieces of CSV. That is several times as fast as choosing and quoting value by value.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TypeVar

SEED = "penstock"
POOL = 256
_ROWS = 1024

T = TypeVar("T")


def draw_numbers(form: str, *seeds: str) -> Iterator[tuple[int, ...]]:
    """Endless tuples of random numbers in the form of ``struct`` ("16B", "8BH").

    The n-th tuple depends on form and seeds alone, on any machine and version of Python.
    """
    shape = struct.Struct("<" + form)
    source = random.Random(":".join(seeds))
    while True:
        yield from shape.iter_unpack(source.randbytes(shape.size * _ROWS))


def draw_first(count: int, form: str, *seeds: str) -> Iterator[tuple[int, ...]]:
    """The first ``count`` of ``draw_numbers``."""
    return islice(draw_numbers(form, *seeds), count)


def make_pool(pieces: Sequence[T], *seeds: str) -> list[T]:
    """POOL pieces in random order, each as often as the others, give or take one."""
    whole = [pieces[i % len(pieces)] for i in range(POOL)]
    random.Random(":".join(seeds)).shuffle(whole)
    return whole


def weighted_pool(*parts: tuple[int, T]) -> list[T]:
    """A pool in which each piece occurs as often as its weight says; weights sum up to POOL."""
    whole = [piece for weight, piece in parts for _ in range(weight)]
    assert len(whole) == POOL
    return whole


def quote_csv(text: str) -> str:
    """The text as a CSV value; the empty text is ``""``, since an empty value means NULL."""
    if text and not any(mark in text for mark in ',"\r\n'):
        return text
    return '"' + text.replace('"', '""') + '"'


def fill_pattern(pattern: str, source: random.Random) -> str:
    """The pattern with a digit in place of each "#", and blanks in place of "_"."""
    digits = (str(source.randrange(10)) if c == "#" else c for c in pattern)
    return "".join(digits).replace("_", " ")
