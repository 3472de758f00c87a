"""Orders, and pages that join into the whole list in any order."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import (
    Boolean,
    Column,
    ColumnElement,
    DateTime,
    Double,
    Index,
    MetaData,
    Numeric,
    Table,
    Text,
    case,
    create_engine,
    func,
    literal,
    select,
    text,
)
from sqlalchemy.schema import CreateTable

from chance import SEED
from penstockd.catalog import Field, FieldClass, Kind
from penstockd.keyring import FixedKey
from penstockd.query import FieldUnknown, Names, OrderBy, OrderError, PageTokenError, PageTokens

ROWS = 70
DIALECT = create_engine("postgresql+asyncpg://").dialect

KEY = Field("record_id", "recordId", Kind.STRING, FieldClass.PUBLIC, False, key=True, in_key=True)
NAME = Field("name", "name", Kind.STRING, FieldClass.PUBLIC, False)
FLAG = Field("flag", "flag", Kind.BOOL, FieldClass.PUBLIC, False)
CITY = Field("place.city", "place.city", Kind.STRING, FieldClass.PUBLIC, True)
RATE = Field("rate", "rate", Kind.DOUBLE, FieldClass.PUBLIC, True)
MONEY = Field("money", "money", Kind.DECIMAL, FieldClass.PUBLIC, True)
AT = Field("seen_at", "seenAt", Kind.TIMESTAMP, FieldClass.PUBLIC, True)
MASKED = Field("masked", "masked", Kind.STRING, FieldClass.PII, False)
TAGS = Field("tags", "tags", Kind.LIST, FieldClass.PUBLIC, False, element=NAME)
BLOB = Field("blob", "blob", Kind.BYTES, FieldClass.PUBLIC, False)
SORTABLE = [KEY, NAME, FLAG, CITY, RATE, MONEY, AT, MASKED]

TABLE = Table(
    "things",
    MetaData(),
    Column("record_id", Text(collation="C"), primary_key=True),
    Column("name", Text(collation="C"), nullable=False),
    Column("flag", Boolean(), nullable=False),
    Column("place.city", Text(collation="C"), quote=True),
    Column("rate", Double()),
    Column("money", Numeric()),
    Column("seen_at", DateTime(timezone=True)),
    Index("things_by_name", "name", "record_id"),
)


@pytest.fixture(scope="module")
def names(names_of: Callable[..., Names]) -> Names:
    columns: dict[Field, ColumnElement[Any]] = {
        f: TABLE.c[f.path] for f in SORTABLE if f is not MASKED
    }
    # A mask may return NULL for a field that is never NULL.
    columns[MASKED] = case((TABLE.c.flag, TABLE.c.name))
    columns |= {TAGS: literal(None), BLOB: literal(None)}
    return names_of(columns)


@pytest.fixture(scope="module")
def filled(run: Callable[..., list[Any]]) -> Callable[..., list[Any]]:
    rng = random.Random(SEED)

    def maybe(values: Sequence[Any]) -> Any:
        return None if rng.random() < 0.3 else rng.choice(values)

    run(CreateTable(TABLE))
    for index in TABLE.indexes:
        run(text(f'CREATE INDEX {index.name} ON things ("name", "record_id")'))
    rows = [
        {
            "record_id": f"{rng.choice('aAéz')}{n}",
            "name": rng.choice(["", "a", "A", "é", "😀", "\ufffd"]),
            "flag": rng.random() < 0.5,
            "place.city": maybe(["", "x", "Y"]),
            "rate": maybe([0.0, -0.0, 0.1, float("nan"), float("inf"), float("-inf")]),
            "money": maybe([Decimal("1.0"), Decimal("1.00"), Decimal("-7.5")]),
            "seen_at": maybe(
                [dt.datetime(2024, 2, 29, 12, 0, 0, n, tzinfo=dt.UTC) for n in (1, 2)]
            ),
        }
        for n in range(ROWS)
    ]
    run(TABLE.insert(), rows)
    return run


def random_order(rng: random.Random) -> str:
    chosen = rng.sample(SORTABLE, rng.randrange(0, 5))
    return ", ".join(
        rng.choice([f.path, f.json_path]) + rng.choice(["", " asc", " desc"]) for f in chosen
    )


def test_pages_join_into_the_whole_list(filled: Callable[..., list[Any]], names: Names) -> None:
    print(f"PENSTOCK_FUZZ_SEED={SEED}")
    rng = random.Random(SEED)
    tokens = PageTokens(FixedKey(b"s" * 32))
    for _ in range(60):
        order_by = random_order(rng)
        order = OrderBy.parse(order_by, names, [KEY])
        base = select(TABLE.c.record_id, *order.expressions()).order_by(*order.columns())
        whole = [r[0] for r in filled(base)]
        assert len(whole) == ROWS
        size = rng.choice([5, 9, 20])
        got: list[str] = []
        page = filled(base.limit(size))
        while page:
            got += [r[0] for r in page]
            token = tokens.issue("q", page[-1][1:])
            page = filled(base.where(order.after(tokens.read(token, "q"))).limit(size))
        assert got == whole, f"seed {SEED}: {order_by}"


def test_a_wrong_place_for_nulls_is_caught(filled: Callable[..., list[Any]], names: Names) -> None:
    order = OrderBy.parse("place.city", names, [KEY])
    base = select(TABLE.c.record_id, *order.expressions())
    nulls_first = [c.nulls_first() for c in order.expressions()[:1]]
    page = filled(base.order_by(*nulls_first, KEY.path).limit(5))
    rest = filled(base.where(order.after(page[-1][1:])).order_by(*order.columns()))
    assert len(page) + len(rest) < ROWS


def said(message: str, position: int | None) -> str:
    """The message with its position, which clients count from 1."""
    return message if position is None else f"{message} (at character {position + 1})"


def sql(expression: ColumnElement[Any]) -> str:
    return str(expression.compile(dialect=DIALECT))


def test_the_key_alone_and_uniform_orders_can_use_an_index(
    filled: Callable[..., list[Any]], names: Names
) -> None:
    assert sql(OrderBy.parse("", names, [KEY]).after(["a"])) == "things.record_id > $1::VARCHAR"
    down = OrderBy.parse("name desc", names, [KEY])
    after = down.after(["n", "a"])
    assert sql(after) == "(things.name, things.record_id) < ($1::VARCHAR, $2::VARCHAR)"
    filled(text("ANALYZE things"))
    plan = select(TABLE.c.record_id).where(after).order_by(*down.columns())
    shown = plan.compile(dialect=DIALECT, compile_kwargs={"literal_binds": True})
    settings = "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off"
    for statement in settings.split("; "):
        filled(text(statement.replace("LOCAL ", "")))
    lines = "\n".join(r[0] for r in filled(text(f"EXPLAIN {shown}".replace(":", "\\:"))))
    assert "Scan Backward using things_by_name" in lines and "Sort" not in lines, lines


def test_the_key_is_last_and_follows_the_last_direction(names: Names) -> None:
    def order(text: str) -> list[tuple[str, bool]]:
        return [(s.field.path, s.descending) for s in OrderBy.parse(text, names, [KEY]).sorts]

    assert order("") == order("  ") == [("record_id", False)]
    assert order("name") == [("name", False), ("record_id", False)]
    assert order(" name  desc ,place.city") == [
        ("name", True),
        ("place.city", False),
        ("record_id", False),
    ]
    assert order("name desc") == [("name", True), ("record_id", True)]
    assert order("recordId desc, name") == [("record_id", True)]


@pytest.mark.parametrize(
    ("text", "message", "position"),
    [
        ("nme", "unknown field 'nme'", 0),
        ("name, place", "unknown field 'place'", 6),
        ("name,", "an order contains an empty name", 5),
        ("name down", "an order is written as 'name' or 'name desc', with commas", 0),
        ("name desc desc", "an order is written as 'name' or 'name desc', with commas", 0),
        ("name, name desc", "'name' is named twice", 6),
        ("seenAt, seen_at", "'seen_at' is named twice", 8),
        ("tags", "'tags' has no order", 0),
        ("blob desc", "'blob' has no order", 0),
    ],
)
def test_refusals(names: Names, text: str, message: str, position: int) -> None:
    with pytest.raises(OrderError) as caught:
        OrderBy.parse(text, names, [KEY])
    assert caught.value.message == said(message, position)
    assert caught.value.position == position
    assert isinstance(caught.value, FieldUnknown) is message.startswith("unknown")


def test_limits(names_of: Callable[..., Names]) -> None:
    fields = [Field(f"f{n}", f"f{n}", Kind.STRING, FieldClass.PUBLIC, True) for n in range(9)]
    columns: dict[Field, ColumnElement[Any]] = {f: Column(f.path, Text()) for f in fields}
    names = names_of({**columns, KEY: TABLE.c.record_id})
    assert len(OrderBy.parse(",".join(f.path for f in fields[:8]), names, [KEY]).sorts) == 9
    with pytest.raises(OrderError, match="at most 8 names"):
        OrderBy.parse(",".join(f.path for f in fields), names, [KEY])
    with pytest.raises(OrderError, match="4096 bytes"):
        OrderBy.parse("f1," * 2000, names, [KEY])


@pytest.mark.parametrize(
    "position", [["a"], ["a", "b", "c"], [1, "b"], ["a", True], [dt.date(2024, 1, 1), "b"]]
)
def test_a_position_of_another_order_is_refused(names: Names, position: list[Any]) -> None:
    with pytest.raises(PageTokenError, match="belongs to another query"):
        OrderBy.parse("name", names, [KEY]).after(position)


def test_masked_strings_sort_by_bytes(names: Names) -> None:
    assert 'COLLATE "C" DESC' in sql(OrderBy.parse("masked desc", names, [KEY]).columns()[0])
    assert sql(func.max(OrderBy.parse("name", names, [KEY]).expressions()[0])) == "max(things.name)"
