"""Expressions give the same result in the database and in Python, and refuse what they lack."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import asyncpg
import pytest
import sqlalchemy as sa

from chance import SEED
from penstockd.catalog import Field, FieldClass, Kind
from penstockd.shapes.expressions import check_expression, field_value
from penstockd.shapes.syntax import ExpressionRefused
from penstockd.store.sql import compile_for_copy
from penstockd.store.tables import column_type, sql_type

FIELDS = {
    name: Field(name, name, kind, FieldClass.PUBLIC, nullable=True)
    for name, kind in {
        "name": Kind.STRING,
        "address.city": Kind.STRING,
        "open": Kind.BOOL,
        "small": Kind.INT32,
        "count": Kind.INT64,
        "share": Kind.DOUBLE,
        "price": Kind.DECIMAL,
        "day": Kind.DATE,
        "time": Kind.TIMESTAMP,
        "tags": Kind.LIST,
    }.items()
}
#: Values of each kind, the awkward ones among them.
VALUES: Mapping[Kind, Sequence[Any]] = {
    Kind.STRING: ["", "a", "Ab", "ß🐘z", "a,b", "%_", "z" * 40, "\\1", "'"],
    Kind.BOOL: [True, False],
    Kind.INT32: [0, 1, -1, 7, 2**31 - 1, -(2**31)],
    Kind.INT64: [0, 1, -1, 3, -7, 2**53 + 1, 2**63 - 1, -(2**63)],
    Kind.DOUBLE: [0.0, -0.0, 1.5, -2.75, 0.1, 1e149, 1e-149, 1e200, 1e-200, 1e308, 5e-324,
                  float("nan"), float("inf"), float("-inf"), 9.3e18, -9223372036854775808.0],
    Kind.DECIMAL: [Decimal("0"), Decimal("0.10"), Decimal("-12.345"), Decimal("123456789.5")],
    Kind.DATE: [date(1, 1, 2), date(2024, 2, 29), date(9999, 12, 30)],
    Kind.TIMESTAMP: [
        datetime(1, 1, 2, tzinfo=UTC),
        datetime(2024, 2, 29, 23, 59, 59, 999999, UTC),
        datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC),
    ],
    Kind.LIST: [[]],
}  # fmt: skip
NAMES = {
    "bool": ["open"],
    "int": ["small", "count"],
    "double": ["share", "price"],
    "string": ["name", "address.city", "day"],
    "timestamp": ["time"],
}
LITERALS = {
    "bool": ["true", "false"],
    "int": ["0", "1", "-1", "3", "9223372036854775807", "-9223372036854775808"],
    "double": ["0.0", "1.5", "-0.1", "1e100", "1e-160"],
    "string": ["''", "'a'", "'ß🐘'", "'A,'", "'%'", "'2024-02-29'"],
    "timestamp": [],
}
THINGS = sa.table("things", *(sa.column(path, column_type(f)) for path, f in FIELDS.items()))
PARTS = (
    *("getFullYear", "getMonth", "getDate", "getDayOfMonth", "getDayOfWeek"),
    *("getHours", "getMinutes"),
)


class Drawing:
    """Draws expressions of a type."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance

    def draw(self, type: str, depth: int) -> str:
        """One expression."""
        pick = self.chance.choice
        if depth <= 0 or self.chance.random() < 0.15:
            return pick([*NAMES[type], *LITERALS[type]])

        def a(inner: str) -> str:
            return self.draw(inner, depth - 1)

        any_type = pick(["int", "double", "string", "timestamp"])
        name = pick(NAMES[pick(list(NAMES))])
        forms: dict[str, list[Callable[[], str]]] = {
            "bool": [
                lambda: f"({a('bool')} && {a('bool')})",
                lambda: f"({a('bool')} || {a('bool')})",
                lambda: f"!({a('bool')})",
                lambda: f"({a(any_type)} {pick(['<', '<=', '>', '>='])} {a(any_type)})",
                lambda: f"({a(any_type)} {pick(['==', '!='])} {a(any_type)})",
                lambda: f"({name} {pick(['==', '!='])} null)",
                lambda: (
                    f"({a('string')}).{pick(['startsWith', 'endsWith', 'contains'])}({a('string')})"
                ),
                lambda: f"({a('int')} in [0, 1, 7])",
                lambda: f"({a('string')} in ['a', '', 'ß🐘'])",
            ],
            "int": [
                lambda: f"({a('int')} {pick('+-*/%')} {a('int')})",
                lambda: f"-({a('int')})",
                lambda: f"size({a('string')})",
                lambda: f"int({a('double')})",
                lambda: f"({a('bool')} ? {a('int')} : {a('int')})",
                lambda: f"time.{pick(PARTS)}()",
            ],
            "double": [
                lambda: f"({a('double')} {pick('+-*/')} {a('double')})",
                lambda: f"-({a('double')})",
                lambda: f"double({a('int')})",
                lambda: f"({a('bool')} ? {a('double')} : {a('double')})",
            ],
            "string": [
                lambda: f"({a('string')} + {a('string')})",
                lambda: f"string({a(pick(['int', 'bool']))})",
                lambda: f"({a('string')}).{pick(['lowerAscii', 'upperAscii'])}()",
                lambda: f"({a('string')}).substring({a('int')})",
                lambda: f"({a('string')}).substring({a('int')}, {a('int')})",
                lambda: f"({a('bool')} ? {a('string')} : null)",
            ],
            "timestamp": [lambda: f"({a('bool')} ? time : time)"],
        }
        return pick(forms[type])()


def draw_rows(chance: random.Random, count: int) -> list[dict[str, Any]]:
    """Rows of canonical values."""
    return [
        {
            path: None if chance.random() < 0.15 else chance.choice(VALUES[field.kind])
            for path, field in FIELDS.items()
        }
        for _ in range(count)
    ]


@pytest.fixture
async def table(empty_url: str) -> Any:
    """A connection to a database with an empty table of these fields."""
    connection = await asyncpg.connect(empty_url)
    columns = ", ".join(f'"{path}" {sql_type(f)}' for path, f in FIELDS.items())
    await connection.execute(f"CREATE TABLE things (place int, {columns})")
    yield connection
    await connection.close()


async def fill(connection: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    """Put rows into the table."""
    await connection.copy_records_to_table(
        "things",
        records=[
            (i, *("[]" if path == "tags" and v is not None else v for path, v in row.items()))
            for i, row in enumerate(rows)
        ],
        columns=["place", *FIELDS],
    )


async def compute(connection: Any, expression: Any) -> list[Any]:
    """What the database makes of all rows, through the statements that exports use."""
    select = sa.select(expression).select_from(THINGS).order_by(sa.literal_column("place"))
    text, settings = compile_for_copy(select)
    async with connection.transaction():
        for name, value in settings.items():
            await connection.execute("SELECT set_config($1, $2, true)", name, value)
        return [row[0] for row in await connection.fetch(text)]


def column(field: Field) -> sa.ColumnElement[Any]:
    """The table's column of a field."""
    return THINGS.c[field.path]


def same(left: Any, right: Any) -> bool:
    """Whether two results are one; a sign of zero counts too."""
    return repr(left) == repr(right)


async def test_both_ways_give_the_same(table: Any) -> None:
    chance = random.Random(SEED)
    rows = draw_rows(chance, 60)
    await fill(table, rows)
    drawing, checked, results = Drawing(chance), 0, 0
    while checked < 150:
        text = drawing.draw(chance.choice(["bool", "int", "double", "string"]), 4)
        try:
            expression = check_expression(text, FIELDS, column)
        except ExpressionRefused as refused:
            # What may be compared with a condition that may be null, and what is too long.
            assert any(
                t in str(refused) for t in ("may be null", "at most", "is always null", "null_type")
            ), (
                text,
                refused,
            )
            continue
        checked += 1
        values = [{p: field_value(FIELDS[p], v) for p, v in row.items()} for row in rows]
        expected = [expression.run(v) for v in values]
        try:
            got = await compute(table, expression.sql)
        except asyncpg.PostgresError as error:
            raise AssertionError((SEED, text)) from error
        for row, want, have in zip(rows, expected, got, strict=True):
            assert same(want, have), (SEED, text, row, want, have)
        results += sum(v is not None for v in expected)
    # The experiment says something: most expressions have results.
    assert results > checked * 10


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("name + '!'", "a!"),
        ("count * 2 + 1", 7),
        ("count / 0", None),
        ("count + 9223372036854775807", None),
        ("-7 / 2", -3),
        ("-7 % 3", -1),
        ("share / 0.0", None),
        ("unset_name == null", True),
        ("unset_name + 'x'", None),
        ("unset_name == 'x'", False),
        ("unset_name == null ? 'none' : unset_name", "none"),
        ("name in ['a', 'b'] && !(count in [1])", True),
        ("unset_name.startsWith('a') || true", True),
        ("unset_name.startsWith('a') && false", False),
        ("unset_name.startsWith('a') || false", None),
        ("size('ß🐘')", 2),
        ("'Äa'.upperAscii()", "ÄA"),
        ("'abc'.substring(1)", "bc"),
        ("'abc'.substring(1, 5)", None),
        ("time.getMonth()", 1),
        ("int(-1.7)", -1),
        ("address.city", "b"),
    ],
)
def test_results(text: str, result: Any) -> None:
    values: dict[str, Any] = {
        "name": "a",
        "unset_name": None,
        "count": 3,
        "share": 1.5,
        "address.city": "b",
    }
    values["time"] = datetime(2024, 2, 29, tzinfo=UTC)
    fields = FIELDS | {"unset_name": FIELDS["name"]}
    fields["unset_name"] = Field("unset_name", "u", Kind.STRING, FieldClass.PUBLIC, nullable=True)
    assert check_expression(text, fields, lambda field: sa.column(field.path)).run(values) == result


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is empty"),
        ("hidden + 'x'", "undeclared reference to 'hidden'"),
        ("address.hidden", "undeclared reference to 'address.hidden'"),
        ("name +", "Syntax error"),
        ("name + count", "applies '+' to (string, int); it takes (int, int) or (double, double)"),
        ("count + price", "applies '+' to (int, double)"),
        ("name == count", "compares string and int"),
        ("name ? 1 : 2", "has string where '?:' takes bool"),
        ("open ? count : name", "results of two types"),
        ("size(tags)", "reads 'tags', whose type (list) it cannot use"),
        ("[1].exists(x, x == count)", "macros"),
        ("name.matches('a')", "uses matches(), which shapes do not have"),
        ("null", "is always null"),
        ("(open ? name : null) == 'a'", "that may be null"),
        ("count in []", "without a list"),
        (" + ".join(["name"] * 50), "recursion depth"),
        (f"count in [{', '.join('1' * 300)}]", "300 operators and operands in all"),
        ("int", "uses 'int' as a value"),
        ("google.protobuf.Timestamp == type", "as a value"),
        ("name + '\\x00'", "a character that no value can hold"),
        ("name + '\\uffff'", "a character that no value can hold"),
        ("'" + "x" * 3000 + "'", "2048 bytes at most"),
        ("1u", "unsigned"),
    ],
)
def test_refusals_name_what_is_wrong(text: str, reason: str) -> None:
    with pytest.raises(ExpressionRefused) as refused:
        check_expression(text, FIELDS, column)
    assert reason in str(refused.value)


@pytest.mark.parametrize(
    "nest",
    [
        lambda inner: f"{inner} == true",
        lambda inner: f"({inner}) != false",
        lambda inner: f"({inner}) in [true]",
        lambda inner: f"({inner}) && open",
        lambda inner: f"({inner}) ? open : false",
        lambda inner: f"string({inner}).substring(0) == 'a'",
        lambda inner: f"(string({inner}) + 'a').substring(0, 1).startsWith('t')",
        lambda inner: f"-size(string({inner})) / 2 * 3 - 1 % 7 > 5",
        lambda inner: f"double(size(string({inner}))) / 2.0 > 5.0",
    ],
)
def test_sql_grows_with_the_expression_and_no_faster(nest: Callable[[str], str]) -> None:
    """Each operand stands in the statement once, however deep the expression is."""
    sizes = []
    for depth in (1, 2, 3):
        text = "size(name) < 1"
        for _ in range(depth):
            text = nest(text)
        sql = check_expression(text, FIELDS, column).sql
        sizes.append(len(compile_for_copy(sa.select(sql).select_from(THINGS))[0]))
    assert sizes[2] - sizes[1] < 1.5 * (sizes[1] - sizes[0]) + 200, sizes


def test_long_texts_are_no_result() -> None:
    expression = check_expression("name + name", FIELDS, column)
    assert expression.run({"name": "x" * 50_000}) == "x" * 100_000
    assert expression.run({"name": "x" * 50_001}) is None


async def test_long_texts_are_no_result_in_the_database_either(table: Any) -> None:
    names = ["x" * 50_000, "x" * 50_001]
    await fill(table, [{path: n if path == "name" else None for path in FIELDS} for n in names])
    found = await compute(table, check_expression("size(name + name)", FIELDS, column).sql)
    assert found == [100_000, None]
