"""The kernel computes the same digests of records as the SDK, from messages and from JSON."""

from __future__ import annotations

import hashlib
import random
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from penstock.client.canonical import canonical_json, format_canonical
from penstockd.catalog.model import Dataset, Field
from penstockd.catalog.record import Codec
from penstockd.formats import FormatError
from penstockd.native.digest import Digester, digest_fields
from penstockd.store.rows import stored_row
from rows_drawn import row
from shelf import Shelf, writable


def sample(things: Dataset, count: int) -> list[list[Any]]:
    """Rows that Hypothesis generates, the same in each run."""
    rows: list[list[Any]] = []

    @settings(
        max_examples=count,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def draw(data: st.DataObject) -> None:
        rows.append(data.draw(row(things, writable(things))))

    draw()
    return rows


async def digests(
    shelf: Shelf, fields: tuple[Field, ...], chunk: int = 1 << 20
) -> list[tuple[str, bytes]]:
    """The keys and digests of some fields of the table's rows; the stream is cut into chunks."""
    digester = Digester(digest_fields(shelf.dataset, fields))
    found: list[tuple[str, bytes]] = []

    def read(data: bytes) -> Iterator[tuple[str, bytes]]:
        for done in digester.feed(data):
            start = 0
            for i, end in enumerate(done.ends):
                yield done.keys[start:end].decode(), done.digests[32 * i : 32 * i + 32]
                start = end

    async def take(data: bytes) -> None:
        for at in range(0, len(data), chunk):
            found.extend(read(data[at : at + chunk]))

    columns = ", ".join(f'"{f.path}"' for f in digester.fields)
    # The same casts as in Digester.sql.
    columns = columns.replace('"ratio"', '"ratio"::text').replace('"weight"', '"weight"::text')
    await shelf.connection.copy_from_query(
        f'SELECT {columns} FROM things ORDER BY "#"', output=take, format="binary"
    )
    assert digester.ended
    return found


def messages(things: Dataset, fields: tuple[Field, ...], rows: list[list[Any]]) -> list[Any]:
    codec = Codec(things, fields)
    return [codec.message(stored_row(fields, list(r))) for r in rows]


@pytest.mark.parametrize("chunk", [1 << 20, 11, 5000])
async def test_the_kernel_and_the_sdk_digest_alike(
    shelf: Shelf, things: Dataset, chunk: int
) -> None:
    fields, rows = writable(things), sample(things, 150)
    await shelf.fill(rows, fields)
    records = messages(things, fields, rows)
    found = await digests(shelf, fields, chunk)
    assert [key for key, _ in found] == [r.thing_id for r in records]
    for (key, digest), record in zip(found, records, strict=True):
        text = format_canonical(record)
        assert digest == hashlib.sha256(text).digest(), (key, text)
        document = json_format.MessageToDict(record)
        assert canonical_json(document, things.message_class) == text, document


async def test_of_some_fields(shelf: Shelf, things: Dataset) -> None:
    fields, rows = writable(things), sample(things, 50)
    await shelf.fill(rows, fields)
    some = tuple(f for f in fields if f.path in ("home_place.deep_part.code", "price", "color"))
    shown = (things.key, *some)
    picked = [[r[fields.index(f)] for f in shown] for r in rows]
    expected = [
        hashlib.sha256(format_canonical(m)).digest() for m in messages(things, shown, picked)
    ]
    assert [digest for _, digest in await digests(shelf, some)] == expected


async def test_rows_of_any_size(shelf: Shelf, things: Dataset) -> None:
    fields = (things.key, things.by_path["title"], things.by_path["words"])
    sizes = [0, 1, 54, 55, 56, 63, 64, 119, 300_000, 2, 1_000_000, *range(400)]
    rows = [
        [f"k{i}", '"\n' * n, {chr(97 + m % 26) * m: "" for m in range(n % 300)}]
        for i, n in enumerate(sizes)
    ]
    await shelf.fill(rows, fields)
    expected = [
        hashlib.sha256(format_canonical(m)).digest() for m in messages(things, fields, rows)
    ]
    for chunk in (1 << 20, 70_000):
        assert [digest for _, digest in await digests(shelf, fields, chunk)] == expected


async def test_numbers_of_the_fewest_digits(shelf: Shelf, things: Dataset) -> None:
    """PostgreSQL prints a digit more if a shorter text lies half way between two numbers."""
    fields = (things.key, things.by_path["ratio"], things.by_path["weight"])
    chance = random.Random(1)
    single = [
        float(chance.randrange(1 << 24, 1 << 25) << chance.randrange(1, 30)) for _ in range(9000)
    ]
    double = [float(chance.randrange(1 << 53, 1 << 54) << chance.randrange(1, 40)) for _ in single]
    double[:2] = [-2.314985463569197e16, 9007199254740993.0]
    narrow = [struct.unpack("<f", struct.pack("<f", v))[0] for v in single]
    rows = [[f"k{i:05}", a, b] for i, (a, b) in enumerate(zip(narrow, double, strict=True))]
    await shelf.fill(rows, fields)
    made = messages(things, fields, rows)
    wrong = [
        format_canonical(m)
        for m, (_, digest) in zip(made, await digests(shelf, fields), strict=True)
        if hashlib.sha256(format_canonical(m)).digest() != digest
    ]
    assert not wrong, (len(wrong), wrong[:5])


async def test_a_value_that_cannot_be_printed(shelf: Shelf, things: Dataset) -> None:
    fields = (things.key, things.by_path["day"])
    await shelf.connection.execute(
        "INSERT INTO things (thing_id, day) VALUES ('a', NULL), ('b', '20000-01-01')"
    )
    with pytest.raises(FormatError, match="day"):
        await digests(shelf, fields)
