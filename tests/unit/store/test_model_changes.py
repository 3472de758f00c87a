"""A catalogue of model changes: each kind, on empty tables and on full ones.

Every change is one dataset of one model, so that a few migrations of a store cover all of them.
Each entry states whether the change is applied at start, applied by command, or refused, and the
values that are read afterwards.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest
from grpc_tools import protoc

from harness import ROOT, folder
from penstockd.catalog import Catalog, Dataset
from penstockd.catalog.load import load_catalog
from penstockd.catalog.record import Codec
from penstockd.catalog.values import from_json, to_json
from penstockd.store.migrate import (
    MigrationFailed,
    MigrationNeeded,
    apply_migration,
    plan_migration,
)
from penstockd.store.step import Consent, Step

START, COMMAND, NEVER = Consent.START, Consent.COMMAND, Consent.NEVER

FIELD = "[(penstock.options.v1.field).class = PUBLIC]"
HEAD = """syntax = "proto3";
package penstock.model.v1;
import "buf/validate/validate.proto";
import "google/protobuf/timestamp.proto";
import "penstock/options/v1/options.proto";
message %s {
  option (penstock.options.v1.dataset) = {title: "Probe"};
%s
  string key_id = 1 [(penstock.options.v1.field) = {key: true, class: PUBLIC}];
  string source = 90;
  string source_id = 91;
  google.protobuf.Timestamp create_time = 92 [(penstock.options.v1.field) = {output_only: true}];
  google.protobuf.Timestamp update_time = 93 [(penstock.options.v1.field) = {output_only: true}];
  string etag = 94 [(penstock.options.v1.field) = {output_only: true}];
}
"""


@dataclass(frozen=True)
class Change:
    """A field ``v``, its declaration before and after, and values: stored JSON -> JSON read later.

    ``refused`` are values that the new model cannot hold. ``full`` is the consent that a table with
    ``values`` needs, ``empty`` that of an empty one.
    """

    before: str
    after: str
    values: Sequence[tuple[Any, Any]] = ()
    full: Consent | None = START
    refused: Sequence[Any] = ()
    empty: Consent | None = START
    says: str = ""
    read: str = "v"
    extra: Mapping[str, Any] = field(default_factory=dict)


def plain(kind: str, number: int = 2, name: str = "v") -> str:
    return f"{kind} {name} = {number} {FIELD};"


def decimal(precision: int, scale: int, label: str = "optional ") -> str:
    return (
        f"{label}string v = 2 [(penstock.options.v1.field) = {{class: PUBLIC,"
        f" decimal: {{precision: {precision}, scale: {scale}}}}}];"
    )


def date(label: str = "optional ") -> str:
    return f"{label}string v = 2 [(penstock.options.v1.field) = {{class: PUBLIC, date: true}}];"


def enum(*names: str, label: str = "") -> str:
    values = " ".join(f"{n} = {i};" for i, n in enumerate(names) if n)
    return f"enum E {{ {values} }} {label}E v = 2 {FIELD};"


def message(members: str, label: str = "repeated ") -> str:
    holder = f"map<string, M> v = 2 {FIELD};" if label == "map" else f"{label}M v = 2 {FIELD};"
    return f"message M {{ {members} }} {holder}"


def ruled(rule: str) -> str:
    return f"string v = 2 [(penstock.options.v1.field).class = PUBLIC, {rule}];"


OPTION = "string v = 2 [(penstock.options.v1.field) = {class: PUBLIC, %s}];"
LETTERS = ("NONE", "A", "B")
NOW = "2024-02-29T12:00:00.123456Z"

CHANGES: dict[str, Change] = {
    # Numbers.
    "int32 to int64": Change(plain("int32"), plain("int64"), [(7, "7"), (-1, "-1")], COMMAND),
    "int64 to int32": Change(
        plain("int64"), plain("int32"), [("7", 7)], COMMAND, refused=["9007199254740993"]
    ),
    "int32 to uint32": Change(plain("int32"), plain("uint32"), [(7, 7)], COMMAND, [-1]),
    "uint32 to int32": Change(plain("uint32"), plain("int32"), [(7, 7)], COMMAND, [2**32 - 1]),
    "uint32 to uint64": Change(plain("uint32"), plain("uint64"), [(7, "7")], COMMAND),
    "uint64 to int64": Change(
        plain("uint64"), plain("int64"), [("7", "7")], COMMAND, refused=[str(2**64 - 1)]
    ),
    "int64 to string": Change(
        plain("int64"), plain("string"), [("9007199254740993", "9007199254740993")], COMMAND
    ),
    "int32 to double": Change(plain("int32"), plain("double"), [(7, 7.0)], COMMAND),
    "int32 to bool": Change(plain("int32"), plain("bool"), refused=[1]),
    "float to double": Change(plain("float"), plain("double"), [(0.1, 0.1)], COMMAND),
    "double to float": Change(
        plain("double"), plain("float"), [(0.5, 0.5)], COMMAND, refused=[1e300]
    ),
    "double to string": Change(plain("double"), plain("string"), [(0.1, "0.1")], COMMAND),
    "bool to string": Change(plain("bool"), plain("string"), [(True, "true")], COMMAND),
    "bool to int32": Change(plain("bool"), plain("int32"), refused=[True]),
    "int64 to decimal": Change(plain("int64"), decimal(5, 2), [("7", "7")], COMMAND),
    # Decimals.
    "decimal wider": Change(decimal(5, 2), decimal(12, 4), [("1.50", "1.50")], None, empty=None),
    "decimal narrower, all fit": Change(decimal(12, 4), decimal(3, 1), [("12.5", "12.5")]),
    "decimal narrower": Change(decimal(12, 4), decimal(3, 1), refused=["12345.6789"]),
    "decimal fewer digits after the point": Change(
        decimal(12, 4), decimal(12, 2), [("1.25", "1.25")], refused=["1.2345"]
    ),
    "decimal to string": Change(
        decimal(12, 4), plain("optional string"), [("1.50", "1.50")], COMMAND
    ),
    "decimal to double": Change(decimal(12, 4), plain("optional double"), [("1.5", 1.5)], COMMAND),
    "decimal to int64": Change(
        decimal(12, 4), plain("optional int64"), [("2", "2")], COMMAND, refused=["2.5"]
    ),
    "string to decimal": Change(
        plain("optional string"), decimal(5, 2), [("1.50", "1.50")], COMMAND, refused=["a lot"]
    ),
    # Text, dates and times.
    "string to int32": Change(plain("string"), plain("int32"), [("42", 42)], COMMAND, ["no"]),
    "string never set to int32": Change(plain("string"), plain("int32"), [("", 0)], COMMAND),
    "string to bytes": Change(plain("string"), plain("bytes"), [("AP8=", "AP8=")], COMMAND, ["*"]),
    "bytes to string": Change(plain("bytes"), plain("string"), [("AP8=", "AP8=")], COMMAND),
    "string to bool": Change(plain("string"), plain("bool"), [("true", True)], COMMAND, ["yes"]),
    "string to date": Change(
        plain("optional string"), date(), [("2024-02-29", "2024-02-29")], COMMAND, ["2023-02-29"]
    ),
    "date to string": Change(
        date(), plain("optional string"), [("2024-02-29", "2024-02-29")], COMMAND
    ),
    "date to timestamp": Change(
        date(), plain("google.protobuf.Timestamp"), refused=["2024-02-29"]
    ),
    "timestamp to string": Change(
        plain("google.protobuf.Timestamp"), plain("optional string"), [(NOW, NOW)], COMMAND
    ),
    "string to timestamp": Change(
        plain("optional string"), plain("google.protobuf.Timestamp"), [(NOW, NOW)], COMMAND, ["x"]
    ),
    # Enums.
    "enum value added": Change(enum(*LETTERS), enum(*LETTERS, "C"), [("A", "A")], None, empty=None),
    "enum value removed, unused": Change(enum(*LETTERS), enum("NONE", "A"), [("A", "A")]),
    "enum value removed": Change(enum(*LETTERS), enum("NONE", "A"), refused=["B"], says="B"),
    "enum value renamed": Change(enum(*LETTERS), enum("NONE", "AA", "B"), [("A", "AA")], COMMAND),
    "enum values swap names": Change(
        enum(*LETTERS), enum("NONE", "B", "A"), [("A", "B"), ("B", "A")], COMMAND
    ),
    "enum's zero renamed": Change(
        enum(*LETTERS), enum("UNKNOWN", "A", "B"), [("NONE", "UNKNOWN")], COMMAND
    ),
    "string to enum": Change(plain("string"), enum(*LETTERS), [("A", "A")], refused=["Z"]),
    "string never set to enum": Change(plain("string"), enum(*LETTERS), [("", "NONE")], COMMAND),
    "enum to string": Change(enum(*LETTERS), plain("string"), [("A", "A")]),
    # Presence.
    "may be unset": Change(plain("int32"), plain("optional int32"), [(7, 7)]),
    "may not be unset, none is": Change(plain("optional int32"), plain("int32"), [(7, 7)]),
    "may not be unset": Change(
        plain("optional int32"), plain("int32"), [(7, 7), (None, 0)], COMMAND, says="unset"
    ),
    "may not be unset, and another kind": Change(
        plain("optional int32"), plain("string"), [(7, "7"), (None, "")], COMMAND
    ),
    # Lists and maps.
    "list of string to list of int32": Change(
        plain("repeated string"), plain("repeated int32"), [(["1"], [1])], COMMAND, [["x"]]
    ),
    "list of int32 to list of int64": Change(
        plain("repeated int32"), plain("repeated int64"), [([1], ["1"]), ([], [])], COMMAND
    ),
    "list of enum, value renamed": Change(
        enum(*LETTERS, label="repeated "),
        enum("NONE", "AA", "B", label="repeated "),
        [(["A", "B"], ["AA", "B"])],
        COMMAND,
    ),
    "list of enum, value removed": Change(
        enum(*LETTERS, label="repeated "), enum("NONE", "A", label="repeated "), refused=[["B"]]
    ),
    "one to list": Change(plain("string"), plain("repeated string"), [("a", ["a"])], COMMAND),
    "list to one": Change(
        plain("repeated string"), plain("string"), [(["a"], "a")], COMMAND, [["a", "b"]]
    ),
    "map's values to another kind": Change(
        plain("map<string, string>"), plain("map<string, int64>"), [({"a": "1"}, {"a": "1"})],
        START, [{"a": "x"}],
    ),
    "map's keys to another kind": Change(
        plain("map<string, string>"), plain("map<int32, string>"), [({"1": "a"}, {"1": "a"})],
        START, [{"a": "a"}],
    ),
    "list to map": Change(plain("repeated string"), plain("map<string, string>"), refused=[["a"]]),
    "member renamed": Change(
        message("string first_name = 1;"), message("string given_name = 1;"),
        [([{"firstName": "a"}], [{"givenName": "a"}])], COMMAND,
    ),
    "member added": Change(
        message("string a = 1;"), message("string a = 1; string b = 2;"),
        [([{"a": "x"}], [{"a": "x", "b": ""}])], COMMAND,
    ),
    "optional member added": Change(
        message("string a = 1;"), message("string a = 1; optional string b = 2;"),
        [([{"a": "x"}], [{"a": "x"}])], None, empty=None,
    ),
    "member removed": Change(
        message("string a = 1; string b = 2;"), message("string a = 1;"),
        [([{"a": "x", "b": "y"}], [{"a": "x"}])], COMMAND, says="drops b",
    ),
    "member of another kind": Change(
        message("string a = 1;"), message("int32 a = 1;"),
        [([{"a": "7"}], [{"a": 7}])], COMMAND, [[{"a": "x"}]],
    ),
    "member of a map's message renamed": Change(
        message("string a = 1;", "map"), message("string b = 1;", "map"),
        [({"k": {"a": "x"}}, {"k": {"b": "x"}})], COMMAND,
    ),
    # Fields.
    "field renamed": Change(
        plain("string"), plain("string", name="w"), [("a", "a")], COMMAND, read="w", says="v to w"
    ),
    "field renamed, and of another kind": Change(
        plain("string"), plain("int32", name="w"), [("7", 7)], COMMAND, ["x"], read="w"
    ),
    "field removed": Change(
        plain("string") + plain("int32", 3, "w"), plain("int32", 3, "w"), [("a", 0)], COMMAND,
        read="w",
    ),
    "field added": Change(
        plain("string"), plain("string") + plain("int32", 3, "w"), [("a", 0)], read="w"
    ),
    "field of another number": Change(
        plain("string"), plain("string", 3), [("a", "a")], None, empty=None
    ),
    "fields swap names": Change(
        plain("string") + plain("string", 3, "w"), plain("string", 2, "w") + plain("string", 3),
        [("a", "a")], COMMAND, read="w",
    ),
    "nested member renamed": Change(
        "message N { string a = 1; } N n = 2;", "message N { string b = 1; } N n = 2;",
        [("x", "x")], COMMAND, read="n.b", extra={"write": "n.a"},
    ),
    # Rules.
    "rule tightened": Change(
        ruled("(buf.validate.field).string.max_len = 9"),
        ruled("(buf.validate.field).string.max_len = 2"),
        [("abc", "abc")], START, empty=None, says="1 records break the current rules",
    ),
    "rule tightened, all keep it": Change(
        ruled("(buf.validate.field).string.max_len = 9"),
        ruled("(buf.validate.field).string.max_len = 2"),
        [("ab", "ab")], None, empty=None,
    ),
    # Unique values, a oneof, or another spelling.
    "unique from now on": Change(
        plain("string"), OPTION % "unique: true", [("a", "a"), ("b", "b"), ("", "")], START,
        refused=["x", "x"],
    ),
    "indexed from now on": Change(plain("string"), OPTION % "indexed: true", [("a", "a")], START),
    "no longer unique": Change(OPTION % "unique: true", plain("string"), [("a", "a")], START),
    "fields become a oneof": Change(
        plain("string") + plain("string", 3, "w"),
        f"oneof c {{ {plain('string')} {plain('string', 3, 'w')} }}",
        [("a", "a"), ("", None)], START,
    ),
    "an enum value gets a label": Change(
        "enum E { NONE = 0; A = 1; } " + plain("E"),
        'enum E { NONE = 0; A = 1 [(penstock.options.v1.label) = "PG-13"]; } ' + plain("E"),
        [("A", "PG-13"), ("NONE", "NONE")], COMMAND,
    ),
    "rule loosened": Change(
        ruled("(buf.validate.field).string.max_len = 2"),
        ruled("(buf.validate.field).string.max_len = 9"),
        [("ab", "ab")], None, empty=None,
    ),
}  # fmt: skip


def name_of(change: str) -> str:
    return "p_" + re.sub(r"[^a-z0-9]+", "_", change.lower()).strip("_")


def catalog_of(declared: Mapping[str, str], target: Path) -> Catalog:
    """The catalog with a dataset for each change, with its declaration."""
    root = target / "protos/penstock/model/v1"
    root.mkdir(parents=True)
    for change, text in declared.items():
        title = "".join(part.capitalize() for part in name_of(change).split("_"))
        (root / f"{name_of(change)}.proto").write_text(HEAD % (title, text))
    known = next(Path(p) for p in [ROOT / "protos/vendor"] if p.is_dir())
    files = [f"penstock/model/v1/{name_of(c)}.proto" for c in declared]
    import grpc_tools

    bundled = Path(grpc_tools.__file__).parent / "_proto"
    roots = [f"-I{p}" for p in (target / "protos", ROOT / "protos", known, bundled)]
    output = target / "model.binpb"
    command = ["protoc", *roots, "--include_imports", f"--descriptor_set_out={output}", *files]
    assert protoc.main(command) == 0
    return load_catalog(output)


@pytest.fixture(scope="module")
def before() -> Iterator[Catalog]:
    with folder() as target:
        yield catalog_of({n: c.before for n, c in CHANGES.items()}, target)


@pytest.fixture(scope="module")
def after() -> Iterator[Catalog]:
    with folder() as target:
        yield catalog_of({n: c.after for n, c in CHANGES.items()}, target)


def mixed(old: Catalog, new: Catalog, refused: Sequence[str]) -> Catalog:
    """The new model, except for some datasets that stay unchanged."""
    chosen = {d.name: old[d.name] if d.name in refused else d for d in new}
    return Catalog(chosen, new.pool)


async def fill(connection: asyncpg.Connection[Any], dataset: Dataset, change: Change) -> None:
    """A record for each value, with keys in their order."""
    path = change.extra.get("write", "v")
    target = dataset.by_path[path]
    for index, (value, _) in enumerate(change.values):
        await insert(connection, dataset, f"k{index}", path, from_json(target, value))


async def insert(
    connection: asyncpg.Connection[Any], dataset: Dataset, key: str, path: str, value: Any
) -> None:
    target = dataset.by_path[path]
    stored = orjson.dumps(value).decode() if target.repeated and value is not None else value
    await connection.execute(
        f'INSERT INTO data."{dataset.name}" (key_id, create_time, update_time, etag, "{path}")'
        " VALUES ($1, now(), now(), 1, $2)",
        key,
        stored,
    )


async def read(connection: asyncpg.Connection[Any], dataset: Dataset, path: str) -> list[Any]:
    """The JSON of a field of all records, by way of their messages."""
    chosen = ", ".join(f'"{f.path}"' for f in dataset.fields)
    rows = await connection.fetch(f'SELECT {chosen} FROM data."{dataset.name}" ORDER BY key_id')
    codec, place = Codec(dataset, dataset.fields), [f.path for f in dataset.fields].index(path)
    target = dataset.by_path[path]
    values = []
    for row in rows:
        codec.message(tuple(row)).SerializeToString()
        value = row[place]
        if target.repeated:
            value = json.loads(value)
        values.append(to_json(target, value))
    return values


def consent_of(steps: Sequence[Step], dataset: str) -> Consent | None:
    """The consent that the steps of a dataset need together; None if it has none."""
    found = {s.consent for s in steps if dataset in re.findall(r"\w+", s.description)}
    return next((c for c in (NEVER, COMMAND, START) if c in found), None)


async def test_on_empty_tables_every_change_is_applied_at_start(
    before: Catalog, after: Catalog, empty_url: str
) -> None:
    await apply_migration(empty_url, before)
    steps = await plan_migration(empty_url, after)
    assert {n: consent_of(steps, name_of(n)) for n in CHANGES} == {
        n: c.empty for n, c in CHANGES.items()
    }
    await apply_migration(empty_url, after)
    assert await plan_migration(empty_url, after) == []


async def test_on_full_tables_values_are_kept_converted_or_refused(
    before: Catalog, after: Catalog, empty_url: str
) -> None:
    await apply_migration(empty_url, before)
    connection = await asyncpg.connect(empty_url)
    try:
        for name, change in CHANGES.items():
            await fill(connection, before[name_of(name)], change)
        steps = await plan_migration(empty_url, after)
        expected = {n: c.full if c.values else c.empty for n, c in CHANGES.items()}
        assert {n: consent_of(steps, name_of(n)) for n in CHANGES} == expected
        for name, change in CHANGES.items():
            said = [s.description for s in steps if name_of(name) in s.description]
            assert not change.values or not change.says or change.says in " ".join(said), said

        with pytest.raises(MigrationNeeded):
            await apply_migration(empty_url, after)
        await apply_migration(empty_url, after, destructive=True)
        assert await plan_migration(empty_url, after) == []
        for name, change in CHANGES.items():
            dataset = after[name_of(name)]
            values = await read(connection, dataset, change.read)
            assert values == [v for _, v in change.values], name
    finally:
        await connection.close()


async def test_values_that_the_new_model_cannot_hold_are_refused_with_their_keys(
    before: Catalog, after: Catalog, empty_url: str
) -> None:
    await apply_migration(empty_url, before)
    refused = {n: c for n, c in CHANGES.items() if c.refused}
    connection = await asyncpg.connect(empty_url)
    try:
        for name, change in refused.items():
            dataset = before[name_of(name)]
            for index, value in enumerate(change.refused):
                stored = from_json(dataset.by_path["v"], value)
                await insert(connection, dataset, f"bad{index}", "v", stored)
        steps = await plan_migration(empty_url, after)
        assert {n: consent_of(steps, name_of(n)) for n in refused} == dict.fromkeys(refused, NEVER)
        for name in refused:
            [said] = [
                s.description
                for s in steps
                if name_of(name) in s.description and s.consent is NEVER
            ]
            assert "bad0: " in said, said
        for destructive in (False, True):
            with pytest.raises(MigrationFailed, match="bad0: "):
                await apply_migration(empty_url, after, destructive=destructive)
        for name, change in refused.items():
            values = await read(connection, before[name_of(name)], "v")
            assert values == list(change.refused), name
        # The other datasets are migrated.
        await apply_migration(empty_url, mixed(before, after, [name_of(n) for n in refused]))
    finally:
        await connection.close()


async def test_a_oneof_of_which_a_record_has_set_several_is_refused(
    before: Catalog, after: Catalog, empty_url: str
) -> None:
    name = name_of("fields become a oneof")
    old, new = (Catalog({name: c[name]}, c.pool) for c in (before, after))
    await apply_migration(empty_url, old)
    connection = await asyncpg.connect(empty_url)
    try:
        for key, v, w in (("k1", "a", ""), ("k2", "a", "b")):
            await insert(connection, old[name], key, "v", v)
            await connection.execute(f"UPDATE data.{name} SET w = $1 WHERE key_id = $2", w, key)
        with pytest.raises(
            MigrationFailed, match=r"p_fields_become_a_oneof\.c .* several members: k2"
        ):
            await apply_migration(empty_url, new, destructive=True)
        await connection.execute(f"UPDATE data.{name} SET w = '' WHERE key_id = 'k2'")
        await apply_migration(empty_url, new)
        assert await read(connection, new[name], "w") == [None, None]
    finally:
        await connection.close()


async def test_indexes_are_made_and_dropped(
    before: Catalog, after: Catalog, empty_url: str
) -> None:
    await apply_migration(empty_url, before)
    connection = await asyncpg.connect(empty_url)
    sql = "SELECT indexname FROM pg_indexes WHERE indexname ~ '~(unique|index)$' ORDER BY 1"
    try:
        assert [r[0] for r in await connection.fetch(sql)] == ["p_no_longer_unique.v~unique"]
        await apply_migration(empty_url, after)
        wanted = ["p_indexed_from_now_on.v~index", "p_unique_from_now_on.v~unique"]
        assert [r[0] for r in await connection.fetch(sql)] == wanted
        # The leftovers of an interrupted creation are replaced.
        await connection.execute(
            "UPDATE pg_index SET indisvalid = false"
            " WHERE indexrelid = 'data.\"p_unique_from_now_on.v~unique\"'::regclass"
        )
        await apply_migration(empty_url, after)
        valid = await connection.fetchval(
            "SELECT indisvalid FROM pg_index"
            " WHERE indexrelid = 'data.\"p_unique_from_now_on.v~unique\"'::regclass"
        )
        assert valid is True
    finally:
        await connection.close()
