"""Random filters over random records: PostgreSQL and plain Python must always agree.

PENSTOCK_FUZZ_CASES sets the number of filters, PENSTOCK_FUZZ_SEED repeats a run.
"""

from __future__ import annotations

import datetime as dt
import json
import math
import operator
import os
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import (
    REAL,
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Date,
    DateTime,
    Double,
    Integer,
    MetaData,
    Numeric,
    Table,
    Text,
    cast,
    exists,
    func,
    select,
)
from sqlalchemy import literal as literal_value
from sqlalchemy import text as text_clause
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.schema import CreateTable

from chance import SEED
from penstock.model.v1 import orders_pb2
from penstockd.catalog import Field, FieldClass, Kind
from penstockd.catalog.load import load_leaves
from penstockd.query import (
    Expression,
    Names,
    compile_filter,
    evaluate_filter,
    make_matcher,
    parse_filter,
    parse_rule,
    plain,
)
from penstockd.query.resolve import round_single

pytestmark = pytest.mark.lane(priority=9)

CASES = int(os.environ.get("PENSTOCK_FUZZ_CASES", "24000"))
ROWS = 30
#: The cases are split into this many tests, to show progress.
PARTS = 4
#: The number of filters in one statement.
AT_ONCE = 50

TEXTS = ["", "a", "A", "ab", "abc", "b", "é", "z", "%", "_", "a_b", "a%b", "\\", "*", "a*", "😀"]
TEXTS += ["\ufffd", "null", 'q"q', "q'q", "two\nlines", "a b", "NOT", "-1", "{a,b}", "$1", ":x"]
SHADES = {"SHADE_UNSPECIFIED": 0, "RED": 1, "BLUE": 2}
FLOATS = [0.0, -0.0, 1.0, 0.1, -2.5, 1e30, math.inf, -math.inf, math.nan]
TIMES = [
    dt.datetime(1970, 1, 1, tzinfo=dt.UTC),
    dt.datetime(2024, 2, 29, 12, 0, 0, 123456, tzinfo=dt.UTC),
    dt.datetime(2024, 2, 29, 12, 0, 0, 123457, tzinfo=dt.UTC),
    dt.datetime(9999, 12, 31, 23, 59, 59, tzinfo=dt.UTC),
]
POOLS: dict[Kind, list[Any]] = {
    Kind.STRING: TEXTS,
    Kind.ENUM: list(SHADES),
    Kind.BOOL: [True, False],
    Kind.INT32: [0, 1, -1, 2**31 - 1, -(2**31)],
    Kind.INT64: [0, 1, -1, 2**53 + 1, 2**53, 2**63 - 1, -(2**63)],
    Kind.UINT32: [0, 1, 2**32 - 1],
    Kind.UINT64: [0, 1, 2**63, 2**64 - 1],
    Kind.FLOAT: [round_single(v) for v in FLOATS],
    Kind.DOUBLE: [*FLOATS, 2.0**53, 5e-324, 1.7976931348623157e308],
    Kind.DECIMAL: [Decimal(t) for t in ("0", "0.00", "12.5", "12.50", "-3", "99999.9999")],
    Kind.DATE: [dt.date(1, 1, 1), dt.date(2024, 2, 29), dt.date(9999, 12, 31)],
    Kind.TIMESTAMP: TIMES,
}
TYPES: dict[Kind, Any] = {
    Kind.STRING: Text(collation="C"),
    Kind.ENUM: Text(collation="C"),
    Kind.BOOL: Boolean(),
    Kind.INT32: Integer(),
    Kind.INT64: BigInteger(),
    Kind.UINT32: BigInteger(),
    Kind.UINT64: Numeric(20, 0),
    Kind.FLOAT: REAL(),
    Kind.DOUBLE: Double(),
    Kind.DECIMAL: Numeric(),
    Kind.DATE: Date(),
    Kind.TIMESTAMP: DateTime(timezone=True),
    Kind.LIST: JSONB(),
    Kind.MAP: JSONB(),
    Kind.STRUCT: JSONB(),
}
LINE: Any = orders_pb2.Order.Line.DESCRIPTOR


def field(path: str, kind: Kind, nullable: bool = True, **more: Any) -> Field:
    first, *rest = path.replace(".", "_. ").split("_")
    json_path = (first + "".join(w[:1].upper() + w[1:] for w in rest)).replace(". ", ".")
    json_path = ".".join(p[:1].lower() + p[1:] for p in json_path.split("."))
    more.setdefault("presence", nullable)
    if kind is Kind.ENUM:
        more["enum_values"] = SHADES
    if kind is Kind.DECIMAL:
        more |= {"precision": 18, "scale": 4}
    return Field(path, json_path, kind, FieldClass.PUBLIC, nullable, **more)


def holder(path: str, kind: Kind, of: Kind | None) -> Field:
    if of is None:
        members = load_leaves(LINE, f"{path}.", f"{path}.", FieldClass.PUBLIC, False, {})
        return field(path, kind, False, element_message=LINE, members=tuple(members))
    return field(path, kind, False, element=field(path, of, False))


FIELDS = [
    field("id", Kind.STRING, False, key=True, in_key=True),
    field("label", Kind.STRING, False),
    field("shade", Kind.ENUM, False),
    field("flag", Kind.BOOL, False),
    field("small", Kind.INT32, False),
    field("due", Kind.DECIMAL, False),
    *[field(f"opt_{k.name.lower()}", k) for k in POOLS],
    field("place.city_name", Kind.STRING, presence=False),
    field("place.post_code", Kind.STRING),
    *[holder(f"some_{k.name.lower()}", Kind.LIST, k) for k in POOLS],
    *[holder(f"per_{k.name.lower()}", Kind.MAP, k) for k in POOLS],
    holder("lines", Kind.LIST, None),
    holder("stock", Kind.MAP, None),
    field("facts", Kind.STRUCT),
]
KEYS = ["k", "a b", "x.y", 'q"', "*", "AND"]
#: What may stand in a Struct, and what a filter may ask of it.
DATA: list[Any] = [None, True, False, 0, 1, -1, 0.1, 5e-324, 2**53 - 1, "1", "true", "0", *TEXTS]
NUMBERS = ["0", "1", "-1", "0.1", "1.0", "1e0", "5e-324", "9007199254740992", "0.10", "-0"]
MEMBERS = [*KEYS, "0", "a"]


def table(name: str) -> Table:
    columns = [Column(f.path, TYPES[f.kind], nullable=f.nullable, quote=True) for f in FIELDS]
    return Table(name, MetaData(), *columns, Column("foreign_text", Text(collation="pg_c_utf8")))


FOREIGN = field("foreign_text", Kind.STRING)


def json_of(kind: Kind, value: Any) -> Any:
    match kind:
        case Kind.INT64 | Kind.UINT64 | Kind.DECIMAL:
            return str(value)
        case Kind.DATE:
            return value.isoformat()
        case Kind.TIMESTAMP:
            return value.isoformat().replace("+00:00", "Z")
        case Kind.FLOAT | Kind.DOUBLE if not math.isfinite(value):
            return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def jsonable(value: Any) -> Any:
    if isinstance(value, float):
        return repr(value)
    return (
        value.isoformat()
        if isinstance(value, dt.date)
        else value
        if not isinstance(value, Decimal)
        else str(value)
    )


def line(rng: random.Random) -> dict[str, Any]:
    made: dict[str, Any] = {
        "productId": rng.choice(TEXTS),
        "quantity": rng.choice([0, 1, 2]),
        "unitPrice": rng.choice(["", "0", "12.5", "12.50"]),
        "discount": rng.choice(["0.15", "0.150", "0"]),
    }
    return {k: v for k, v in made.items() if rng.random() < 0.7}


def value_of(f: Field, rng: random.Random) -> Any:
    if f.nullable and rng.random() < 0.25:
        return None
    if f.kind is Kind.STRUCT:
        return data(rng, 0)
    if f.kind not in (Kind.LIST, Kind.MAP):
        return rng.choice(POOLS[f.kind])

    def one() -> Any:
        return (
            json_of(f.element.kind, rng.choice(POOLS[f.element.kind])) if f.element else line(rng)
        )

    if f.kind is Kind.LIST:
        return [one() for _ in range(rng.choice([0, 0, 1, 2, 3]))]
    return {k: one() for k in KEYS if rng.random() < 0.3}


def data(rng: random.Random, depth: int) -> dict[str, Any]:
    def one() -> Any:
        roll = rng.random()
        if depth < 3 and roll < 0.2:
            return data(rng, depth + 1)
        if depth < 3 and roll < 0.4:
            return [rng.choice([*DATA, [1], {"k": "1"}]) for _ in range(rng.randrange(4))]
        return rng.choice(DATA)

    return {k: one() for k in MEMBERS if rng.random() < 0.6}


def asked_of_struct(name: str, rng: random.Random) -> str:
    """A test of a Struct or of a member of it."""
    path = [quoted(rng.choice(MEMBERS), rng) for _ in range(rng.choice([1, 1, 2, 3]))]
    member = ".".join([name, *path])
    if rng.random() < 0.2:
        whole = [f"{name}:*", f"{name}:{path[0]}", f"{name}:k.k", f"{name}.0.k:*"]
        return rng.choice([*whole, f"{member}:*"])
    comparator = rng.choice(["=", "!=", "=", ":", "<", "<=", ">", ">="])
    roll = rng.random()
    if roll < 0.4:
        return f"{member} {comparator} {rng.choice(NUMBERS)}"
    if roll < 0.5 and comparator in ("=", "!=", ":"):
        return f"{member} {comparator} {rng.choice(['true', 'false'])}"
    wild = comparator in ("=", "!=")
    return f"{member} {comparator} {literal(Kind.STRING, rng, wild=wild)}"


def record(rng: random.Random, number: int) -> dict[str, Any]:
    made = {f.path: value_of(f, rng) for f in [*FIELDS, FOREIGN]}
    if rng.random() < 0.2:
        made |= {"place.city_name": None, "place.post_code": None}
    return made | {"id": f"r{number:03}"}


def text_of(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dt.date):
        return value.isoformat().replace("+00:00", "Z")
    if isinstance(value, float):
        return str(json_of(Kind.DOUBLE, value)) if not math.isfinite(value) else repr(value)
    return str(value)


def quoted(text: str, rng: random.Random) -> str:
    quote = rng.choice("\"'")
    body = text.replace("\\", "\\\\").replace(quote, "\\" + quote).replace("*", "\\*")
    return quote + (body.replace("\n", "\\n") if rng.random() < 0.5 else body) + quote


def literal(kind: Kind, rng: random.Random, *, wild: bool) -> str:
    text = text_of(rng.choice(POOLS[kind]))
    if kind is not Kind.STRING:
        return text if rng.random() < 0.5 else f'"{text}"'
    if wild and rng.random() < 0.4:
        body = quoted(text[: rng.randrange(3)], rng)
        return body[0] + rng.choice(["*", ""]) + body[1:-1] + rng.choice(["*", "*", ""]) + body[-1]
    return quoted(text, rng)


def compared(name: str, kind: Kind, rng: random.Random) -> str:
    if rng.random() < 0.15:
        return f"{name}:*"
    order = [] if kind in (Kind.BOOL, Kind.ENUM) else ["<", "<=", ">", ">="]
    comparator = rng.choice(["=", "!=", ":", *order])
    one = literal(kind, rng, wild=comparator in ("=", "!=", ":"))
    if rng.random() < 0.1:
        values = [one, literal(kind, rng, wild=False)]
        one = "(" + " OR ".join(v if v[0] in "\"'" else f'"{v}"' for v in values) + ")"
    space = rng.choice(["", " "])
    return f"{name}{space}{comparator}{space}{one}"


def inside(name: str, of: Field, rng: random.Random, *, has: bool) -> str:
    """A test of a list's elements or a map's values."""
    if of.element is None:
        sub, kind = rng.choice(
            [
                (".product_id", Kind.STRING),
                (".productId", Kind.STRING),
                (".quantity", Kind.INT32),
                (".unit_price", Kind.DECIMAL),
                (".discount", Kind.DECIMAL),
            ]
        )
    else:
        sub, kind = "", of.element.kind
    if not has:
        return compared(name + sub, kind, rng)
    return f"{name}{sub}:{rng.choice(['*', literal(kind, rng, wild=True)])}"


def comparison(rng: random.Random) -> str:
    prefix = "parent." if rng.random() < 0.15 else ""
    if rng.random() < 0.05:
        return prefix + rng.choice(["place:*", "place:city_name", "place:postCode"])
    f = rng.choice([*FIELDS, FOREIGN])
    name = prefix + rng.choice([f.path, f.json_path])
    if f.kind is Kind.STRUCT or rng.random() < 0.05:
        return asked_of_struct(f"{prefix}facts", rng)
    if f.kind is Kind.LIST:
        return f"{name}:*" if rng.random() < 0.1 else inside(name, f, rng, has=True)
    if f.kind is not Kind.MAP:
        return compared(name, f.kind, rng)
    key = quoted(rng.choice(KEYS), rng)
    if rng.random() < 0.3:
        return rng.choice([f"{name}:*", f"{name}:{key}", f"{name}.{key}:*"])
    return inside(f"{name}.{key}", f, rng, has=False)


def random_filter(rng: random.Random, depth: int = 0) -> str:
    roll = rng.random()
    if depth > 3 or roll < 0.35:
        return comparison(rng)
    if roll < 0.55:
        return f"{rng.choice(['NOT ', '-', 'NOT'])}({random_filter(rng, depth + 1)})"
    parts = [random_filter(rng, depth + 1) for _ in range(rng.choice([2, 2, 3]))]
    joined = rng.choice([" AND ", " OR ", " "]).join(f"({p})" if " " in p else p for p in parts)
    return joined


@dataclass
class World:
    """The same records in PostgreSQL and in Python."""

    names: Names
    id_column: ColumnElement[Any]
    records: Mapping[str, Mapping[str, Any]]
    run: Callable[..., list[Any]]

    def matched(self, text: str) -> tuple[set[str], set[str]]:
        """The keys of the matching records, by PostgreSQL and by Python."""
        expression = parse_filter(text)
        statement = select(self.id_column).where(compile_filter(expression, self.names))
        found = {row[0] for row in self.run(statement)}
        return found, {
            k for k, r in self.records.items() if evaluate_filter(expression, self.names, r)
        }

    def all_matched(self, expressions: Sequence[Expression]) -> Iterator[tuple[set[str], set[str]]]:
        """The same for many filters, in one statement."""
        asked = [compile_filter(e, self.names).label(f"m{i}") for i, e in enumerate(expressions)]
        rows = self.run(select(self.id_column, *asked))
        for number, expression in enumerate(expressions, 1):
            match = make_matcher(expression, self.names)
            # As in WHERE: NULL does not match.
            found = {row[0] for row in rows if row[number] is True}
            yield found, {k for k, r in self.records.items() if match(r)}


def fill(run: Callable[..., list[Any]], into: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    # As JSON, since asyncpg turns the first and last dates into infinities.
    run(CreateTable(into))
    data = [{p: jsonable(v) for p, v in r.items()} for r in rows]
    given = func.jsonb_populate_recordset(
        text_clause(f"NULL::{into.name}"), cast(literal_value(json.dumps(data), Text()), JSONB)
    )
    run(into.insert().from_select(list(into.c), select(text_clause("*")).select_from(given)))


@pytest.fixture(scope="module")
def world(run: Callable[..., list[Any]], names_of: Callable[..., Names]) -> World:
    rng = random.Random(SEED)
    children, parents = table("children"), table("parents")
    rows = [record(rng, n) for n in range(ROWS)]
    above = [record(rng, n) for n in range(0, ROWS, 3)]
    fill(run, children, rows)
    fill(run, parents, above)

    def to_parent(predicate: ColumnElement[bool]) -> ColumnElement[bool]:
        return exists(
            select(parents.c.id).where(parents.c.id == children.c.id, predicate)
        ).correlate(children)

    def seen(of: Table) -> dict[Field, ColumnElement[Any]]:
        columns: dict[Field, ColumnElement[Any]] = {f: of.c[f.path] for f in FIELDS}
        # The result of a mask may follow other rules, or none, as here where two masks meet.
        return columns | {FOREIGN: of.c.foreign_text.concat(func.substr(of.c.label, 1, 0))}

    inner = names_of(seen(parents))
    by_id = {r["id"]: r for r in above}
    empty = dict.fromkeys(rows[0], None)
    joined = {
        r["id"]: r | {f"parent.{p}": v for p, v in by_id.get(r["id"], empty).items()} for r in rows
    }
    names = names_of(seen(children), {"parent": (inner, to_parent)})
    return World(names, children.c.id, joined, run)


@pytest.mark.parametrize("part", range(PARTS))
def test_postgres_and_python_agree(world: World, part: int) -> None:
    print(f"PENSTOCK_FUZZ_SEED={SEED} PENSTOCK_FUZZ_CASES={CASES}")
    rng = random.Random(f"{SEED}-{part}")
    telling, cases = 0, CASES // PARTS
    for first in range(0, cases, AT_ONCE):
        texts = [random_filter(rng) for _ in range(min(AT_ONCE, cases - first))]
        texts = [t for t in texts if len(t.encode()) <= 4096]
        answers = world.all_matched([parse_filter(t) for t in texts])
        for text, (found, expected) in zip(texts, answers, strict=True):
            assert found == expected, f"seed {SEED}: {text}"
            telling += 0 < len(found) < ROWS
    assert telling > cases / 3, "the filters hardly tell records apart"


def test_asked_at_once_or_one_by_one_is_the_same(world: World) -> None:
    rng = random.Random(SEED)
    texts = [random_filter(rng) for _ in range(AT_ONCE)]
    one_by_one = [world.matched(t) for t in texts]
    assert list(world.all_matched([parse_filter(t) for t in texts])) == one_by_one


@pytest.mark.parametrize("comparator", ["<=", ">", "!=", "="])
def test_a_wrong_comparator_is_caught(
    world: World, monkeypatch: pytest.MonkeyPatch, comparator: str
) -> None:
    wrong = {"<=": operator.lt, ">": operator.ge, "!=": operator.eq, "=": operator.le}
    monkeypatch.setitem(plain.COMPARE, comparator, wrong[comparator])
    rng = random.Random(SEED)
    texts = (random_filter(rng) for _ in range(500))
    assert any(operator.ne(*world.matched(t)) for t in texts), f"seed {SEED}"


def test_times_in_elements_are_cut_not_rounded(world: World) -> None:
    found, expected = world.matched('some_timestamp:"2024-02-29T12:00:00.1234569Z"')
    assert found == expected == world.matched('some_timestamp:"2024-02-29T12:00:00.123456Z"')[0]


@pytest.mark.parametrize(
    "text",
    [
        "NOT (" * 31 + "label = a" + ")" * 31,
        "flag = true OR NOT (small = 1 AND (" * 15 + "label = a" + "))" * 15,
        " ".join(["label:x"] * 100),
        " OR ".join(["-lines.product_id:x"] * 100),
    ],
)
def test_filters_at_the_limits_run(world: World, text: str) -> None:
    found, expected = world.matched(text)
    assert found == expected


Claims = dict[str, list[str]]


def random_claims(rng: random.Random) -> Claims:
    """A claim of each kind, with one or several values that are valid for fields of the kind."""
    return {
        f"of_{kind.name.lower()}": [
            text_of(v) for v in rng.sample(pool, rng.choice([1, 1, 2])) if text_of(v)
        ]
        or ["a"]
        for kind, pool in POOLS.items()
    }


def random_rule(rng: random.Random, claims: Claims, depth: int = 0) -> tuple[str, str]:
    """A row rule, and an independently written filter that is equal for these claims."""
    if depth < 3 and rng.random() < 0.5:
        parts = [random_rule(rng, claims, depth + 1) for _ in range(rng.choice([1, 2, 2]))]
        start, joint = rng.choice(["", "NOT "]), rng.choice([" AND ", " OR "])
        rule, plain = (joint.join(f"({p[i]})" for p in parts) for i in (0, 1))
        return f"{start}({rule})", f"{start}({plain})"
    if rng.random() < 0.3:
        text = random_filter(rng, 4)
        return text, text
    f = rng.choice([f for f in FIELDS if f.kind in POOLS])
    name = rng.choice(["", "", "parent."]) + f.path
    claim = f"of_{f.kind.name.lower()}"
    values = [quoted(v, rng) for v in claims[claim]]
    comparator = rng.choice(["=", "!=", ":"])
    joint = " AND " if comparator == "!=" else " OR "
    plain = joint.join(f"({name} {comparator} {v})" for v in values)
    if rng.random() < 0.7:
        return f"{name} {comparator} claims.{claim}", f"({plain})"
    other = quoted(text_of(rng.choice(POOLS[f.kind])), rng)
    rule = f"{name} {comparator} (claims.{claim} OR {other})"
    return rule, f"(({plain}) OR ({name} {comparator} {other}))"


def test_rules_are_the_filters_that_their_claims_make_them(world: World) -> None:
    print(f"PENSTOCK_FUZZ_SEED={SEED}")
    rng = random.Random(SEED)
    telling, cases = 0, min(CASES, 10_000) // 10
    for case in range(cases):
        claims = random_claims(rng)
        rule, plain = random_rule(rng, claims)
        bound = parse_rule(rule).bound(claims)
        assert bound is not None, f"seed {SEED}, case {case}: {rule} {claims}"
        (found, by_rule), (_, expected) = world.all_matched([bound, parse_filter(plain)])
        assert found == expected, f"seed {SEED}, case {case}: {rule} {claims}"
        assert found == by_rule
        telling += 0 < len(found) < ROWS
        for lost in parse_rule(rule).claims:
            assert parse_rule(rule).bound({**claims, lost: []}) is None
    assert telling > cases / 5
