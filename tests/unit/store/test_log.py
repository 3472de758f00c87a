"""Stretches of the change log: bounded by numbers and by bytes, and complete."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence

import asyncpg
import pytest

from chance import SEED
from penstockd.store.log import STRETCH_BYTES, Change, Stretch, read_changes, read_stretch
from penstockd.store.writer import BEGIN_REVISION

LARGE = 450_000
_CHANGE = """
INSERT INTO hub.change (ordinal, dataset, key, operation, before, after)
VALUES ($1::bigint, $2, 'k' || $1::bigint, 2, $3, $4)
"""


@pytest.fixture
async def connection(store_url: str) -> AsyncIterator[asyncpg.Connection]:
    """A database whose log is empty."""
    connection = await asyncpg.connect(store_url)
    yield connection
    await connection.close()


async def write(connection: asyncpg.Connection, *sizes: int, dataset: str = "customers") -> None:
    """One transaction with a change for each size, whose images do not compress."""
    chance = random.Random(SEED)
    async with connection.transaction():
        await connection.execute(BEGIN_REVISION)
        for ordinal, size in enumerate(sizes):
            before, after = chance.randbytes(size // 2), chance.randbytes(size - size // 2)
            await connection.execute(_CHANGE, ordinal, dataset, before, after)
        await connection.execute("INSERT INTO hub.pending (row_count) VALUES ($1)", len(sizes))
    await connection.fetchval("SELECT hub.stamp()")


def size(changes: Sequence[Change]) -> int:
    return sum(len(c.before or b"") + len(c.after or b"") for c in changes)


async def stretches(
    connection: asyncpg.Connection, upto: int, datasets: Sequence[str] | None = None
) -> list[Stretch]:
    """All stretches up to a number, one after the other."""
    found, at = [], 0
    while at < upto:
        found.append(await read_stretch(connection, at, upto, datasets))
        assert found[-1].number > at, "it does not move on"
        at = found[-1].number
    return found


async def test_large_changes_make_short_stretches(connection: asyncpg.Connection) -> None:
    await write(connection, *[2 * LARGE] * 40)
    found = await stretches(connection, 40)
    assert max(size(s.changes) for s in found) < STRETCH_BYTES + 2 * LARGE
    assert [len(s.changes) for s in found] == [3] * 13 + [1]
    assert [c.number for s in found for c in s.changes] == list(range(1, 41))
    assert [s.whole for s in found] == [False] * 13 + [True]
    assert {s.transaction for s in found} == {40}


async def test_one_change_is_read_however_large(connection: asyncpg.Connection) -> None:
    await write(connection, 10, 3 * STRETCH_BYTES, 10)
    found = await stretches(connection, 3)
    assert [[c.number for c in s.changes] for s in found] == [[1, 2], [3]]


async def test_small_changes_are_read_as_far_as_was_asked(connection: asyncpg.Connection) -> None:
    await write(connection, *[300] * 2000)
    (found,) = await stretches(connection, 2000)
    assert len(found.changes) == 2000


async def test_what_is_not_looked_at_has_no_size(connection: asyncpg.Connection) -> None:
    await write(connection, *[LARGE] * 10, dataset="orders")
    await write(connection, *[LARGE] * 6)
    await write(connection, *[LARGE] * 10, dataset="orders")
    found = await stretches(connection, 26, ["customers"])
    assert [(s.number, len(s.changes)) for s in found] == [(15, 5), (26, 1)]
    (nothing,) = await stretches(connection, 26, ["products"])
    assert nothing.number == 26 and nothing.whole and not nothing.changes


async def test_stretches_are_the_whole_log_wherever_they_end(
    connection: asyncpg.Connection,
) -> None:
    chance = random.Random(SEED)
    for _ in range(12):
        await write(connection, *chance.choices((0, 50, 5_000, LARGE), k=chance.randint(1, 12)))
    everything = await read_changes(connection, 0, 1 << 40)
    assert size(everything) > 2 * STRETCH_BYTES
    found = await stretches(connection, everything[-1].number)
    assert [c for s in found for c in s.changes] == everything
    for stretch in found:
        last = stretch.changes[-1]
        assert (stretch.number, stretch.transaction) == (last.number, last.transaction)
