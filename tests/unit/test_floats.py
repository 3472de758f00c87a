"""Floats have the digits that PostgreSQL prints, which every format shows."""

from __future__ import annotations

import math
import random
import struct
from collections.abc import Iterator

import asyncpg
import pytest

from penstockd import floats
from penstockd.floats import format_float

SEED = 20261130


def halfway_doubles(rng: random.Random) -> Iterator[float]:
    """Doubles beside short numbers that lie halfway between two doubles."""
    for _ in range(3000):
        number = rng.randrange(1, 10 ** rng.randint(1, 16)) * 10 ** rng.randint(0, 24)
        yield float(number)
        yield math.nextafter(float(number), math.inf)


def single(value: float) -> float:
    found: float = struct.unpack("<f", struct.pack("<f", value))[0]
    return found


def doubles(rng: random.Random) -> list[float]:
    drawn = (struct.unpack("<d", rng.randbytes(8))[0] for _ in range(3000))
    edges = [0.0, 5e-324, 1.7976931348623157e308, 2.0**53, 2.0**54, 1e15, 1e-4, 1e-5]
    powers = [2.0**n for n in range(-1074, 1024, 7)]
    return [v for v in (*drawn, *halfway_doubles(rng), *edges, *powers) if math.isfinite(v)]


def singles(rng: random.Random) -> list[float]:
    drawn = (struct.unpack("<f", rng.randbytes(4))[0] for _ in range(3000))
    edges = [0.1, 3.4028234663852886e38, 1e-45, 33554432.0, 999999.0, 1e6]
    near = [single(v) for v in halfway_doubles(rng) if v < 1e38]
    return [v for v in (*drawn, *near, *map(single, edges)) if math.isfinite(v)]


async def differing(url: str, values: list[float], kind: str) -> list[tuple[str, str]]:
    connection = await asyncpg.connect(url)
    try:
        rows = await connection.fetch(f"SELECT v::text FROM unnest($1::{kind}[]) AS v", values)
    finally:
        await connection.close()
    mine = [format_float(v, single=kind == "float4") for v in values]
    pairs = zip(mine, (row[0] for row in rows), strict=True)
    return [(m, p) for m, p in pairs if m != p]


@pytest.mark.parametrize("kind", ["float8", "float4"])
async def test_the_digits_are_those_of_postgres(
    module_url: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = (doubles if kind == "float8" else singles)(random.Random(SEED))
    assert await differing(module_url, values, kind) == []
    monkeypatch.setattr(floats, "Fraction", lambda number: 0)  # nothing lies halfway
    assert await differing(module_url, values, kind), "negative control: repr has others"
