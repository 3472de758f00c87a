"""Steps make the same text in the database and in Python."""

from __future__ import annotations

import dataclasses
import functools
import json
import random
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import asyncpg
import pytest
import sqlalchemy as sa

from chance import SEED
from penstockd.catalog import Field, FieldClass, Kind
from penstockd.shapes.formats import (
    FormatRefused,
    TextStep,
    join_list,
    map_values,
    write_number,
    write_time,
)
from penstockd.shapes.model import NumberFormat
from penstockd.store.sql import compile_for_copy
from penstockd.store.tables import column_type, sql_type


def field_of(kind: Kind, element: Kind | None = None) -> Field:
    """A field of a kind."""
    inner = None if element is None else field_of(element)
    return Field("x", "x", kind, FieldClass.PUBLIC, nullable=True, element=inner)


@pytest.fixture
async def connection(empty_url: str) -> AsyncIterator[Any]:
    """A connection to an empty database."""
    opened = await asyncpg.connect(empty_url, statement_cache_size=0)
    yield opened
    await opened.close()


async def texts_of(
    connection: Any, field: Field, step: TextStep, values: Sequence[Any]
) -> list[Any]:
    """What the database makes of values and of NULL, as exports ask for it."""
    await connection.execute("DROP TABLE IF EXISTS things")
    await connection.execute(f"CREATE TABLE things (place int, x {sql_type(field)})")
    rows = [(i, json.dumps(v) if field.repeated else v) for i, v in enumerate(values)]
    await connection.executemany("INSERT INTO things VALUES ($1, $2)", [*rows, (len(rows), None)])
    things = sa.table("things", sa.column("x", column_type(field)))
    select = sa.select(step.sql(things.c.x)).select_from(things)
    text, settings = compile_for_copy(select.order_by(sa.literal_column("place")))
    async with connection.transaction():
        for name, value in settings.items():
            await connection.execute("SELECT set_config($1, $2, true)", name, value)
        return [row[0] for row in await connection.fetch(text)]


def draw_numbers(chance: random.Random) -> list[Decimal]:
    """Decimals of all sizes, many of them in the middle between two results."""
    drawn = [
        Decimal(chance.randint(-(10**9), 10**9)).scaleb(-chance.randint(0, 6)) for _ in "x" * 60
    ]
    return [*drawn, *map(Decimal, ("0", "-0.004", "0.005", "-0.005", "2.5", "-2.5", "999999.995"))]


FLOATS = [0.0, -0.0, 0.1, 2.675, -1e-7, 1e22, 123456789.125, float("nan"), float("-inf")]
TIMES = [datetime(2024, 2, 29, 23, 59, 58, 7, UTC), datetime(33, 1, 2, 3, 4, 5, tzinfo=UTC)]
LISTS = [[], ["a"], ["a", "", "b;c"], ["ß🐘", "\\", "'"]]
#: Short and long lists, which are joined in different ways.
LISTS += [[f'{i}"' for i in range(n)] for n in range(9)]
LARGE = [Decimal(f"{sign}{'9' * n}.5") for n in (2, 3, 4, 6, 7, 37) for sign in ("", "-")]
MAP = {"a": "A", "": "none", "3": "three", "true": "ja", "\\1": "'"}

GERMAN = NumberFormat(2, ",", ".")

PAIRS = [(a, b) for a in "YmdHMSf" for b in "YmdHMSf"]

CASES: list[tuple[Kind, Kind | None, Callable[[Field], TextStep], Sequence[Any]]] = [
    (Kind.DECIMAL, None, lambda f: write_number(f, NumberFormat(2)), []),
    (Kind.DECIMAL, None, lambda f: write_number(f, NumberFormat(0, ",", ".")), []),
    (Kind.DECIMAL, None, lambda f: write_number(f, NumberFormat(3, ",", "\\1")), []),
    (Kind.DECIMAL, None, lambda f: write_number(f, NumberFormat(1, "::", "'")), []),
    (Kind.DECIMAL, None, lambda f: write_number(f, NumberFormat(0, ",", ".")), LARGE),
    (Kind.DECIMAL, None, lambda f: write_number(f, NumberFormat(1, ",", ".")), LARGE),
    (Kind.DECIMAL, None, lambda f: write_number(f, NumberFormat(1, ".", "")), LARGE),
    (Kind.DECIMAL, None, lambda f: write_number(f, NumberFormat(1, ".", ",")), LARGE),
    (Kind.DECIMAL, None, lambda f: write_number(f, NumberFormat(2, ", ", ".,")), LARGE),
    (Kind.UINT64, None, lambda f: write_number(f, NumberFormat(0, ".", ",")), [0, 2**64 - 1]),
    (Kind.DOUBLE, None, lambda f: write_number(f, NumberFormat(2, ",", ".")), [*FLOATS, 1e300]),
    (Kind.INT64, None, lambda f: write_number(f, NumberFormat(2, ".", " ")), [0, -1, 2**63 - 1]),
    (Kind.DOUBLE, None, lambda f: write_number(f, NumberFormat(2)), FLOATS),
    (Kind.TIMESTAMP, None, lambda f: write_time(f, "%Y-%m-%dT%H:%M:%S.%fZ"), TIMES),
    (Kind.TIMESTAMP, None, lambda f: write_time(f, '%d "of" %m\\ YYYY %% MM %Y'), TIMES),
    # No two directives become a third one where they touch.
    *(
        (Kind.TIMESTAMP, None, functools.partial(write_time, format=f"%{a}%{b}"), TIMES)
        for a, b in PAIRS
    ),
    (Kind.DATE, None, lambda f: write_time(f, "%d.%m.%Y"), [date(2024, 2, 29), date(1, 1, 2)]),
    (Kind.STRING, None, lambda f: map_values(f, MAP, None), ["a", "", "b", "\\1"]),
    (Kind.STRING, None, lambda f: map_values(f, MAP, "else"), ["a", "", "b", "\\1"]),
    (Kind.BOOL, None, lambda f: map_values(f, MAP, "nein"), [True, False]),
    (Kind.INT32, None, lambda f: map_values(f, MAP, None), [3, -3]),
    (Kind.LIST, Kind.STRING, lambda f: join_list(f, ";"), LISTS),
    (Kind.LIST, Kind.STRING, lambda f: join_list(f, ""), LISTS),
    (Kind.LIST, Kind.INT32, lambda f: join_list(f, ", "), [[1, -2], []]),
    (Kind.LIST, Kind.INT64, lambda f: join_list(f, ", "), [["9007199254740993"]]),
    (Kind.LIST, Kind.BOOL, lambda f: join_list(f, "\n"), [[True, False]]),
]


async def test_both_ways_make_the_same_text(connection: Any) -> None:
    chance = random.Random(SEED)
    for at, (kind, element, make, values) in enumerate(CASES):
        field = field_of(kind, element)
        step, given = make(field), list(values) or draw_numbers(chance)
        expected = [*map(step.run, given), None]
        got = await texts_of(connection, field, step, given)
        assert got == expected, (SEED, at, kind, given)


async def test_rounding_may_add_a_group_of_digits(connection: Any) -> None:
    field = dataclasses.replace(field_of(Kind.DECIMAL), precision=6, scale=3)
    step, given = write_number(field, GERMAN), [Decimal("999.995"), Decimal("-999.995")]
    assert await texts_of(connection, field, step, given) == ["1.000,00", "-1.000,00", None]


@pytest.mark.parametrize(
    ("kind", "make", "value", "text"),
    [
        (Kind.DECIMAL, lambda f: write_number(f, GERMAN), "1234567.125", "1.234.567,13"),
        (Kind.DECIMAL, lambda f: write_number(f, NumberFormat(0)), "-0.4", "0"),
        (Kind.TIMESTAMP, lambda f: write_time(f, "%d.%m.%Y %H:%M"), TIMES[0], "29.02.2024 23:59"),
    ],
)
def test_texts(kind: Kind, make: Callable[[Field], TextStep], value: Any, text: str) -> None:
    given = Decimal(value) if kind is Kind.DECIMAL else value
    assert make(field_of(kind)).run(given) == text


@pytest.mark.parametrize("kind", list(Kind))
def test_each_kind_has_its_steps_or_a_reason(kind: Kind) -> None:
    """No step takes a kind by accident: each either makes text or says what it is for."""
    field = field_of(kind, Kind.DOUBLE if kind is Kind.LIST else None)
    steps: list[Callable[[], TextStep]] = [
        lambda: join_list(field, ","),
        lambda: map_values(field, {"a": "b"}, None),
        lambda: write_number(field, NumberFormat()),
        lambda: write_time(field, "%Y"),
    ]
    for make in steps:
        try:
            make()
        except FormatRefused as refused:
            assert str(refused).startswith("is for ")
