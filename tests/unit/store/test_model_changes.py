"""A catalogue of model changes: each kind, on empty tables and on full ones.

Every change is one dataset of one model, so that a few migrations of a store cover all of them.
Each entry states whether the change is applied at start, applied by command, or refused, and the
values that are read afterwards.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import asyncpg
import orjson
import pytest
from grpc_tools import protoc

from changing import COMMAND, NEVER, START, Change
from harness import ROOT, folder
from model_changes import CHANGES, dataset_of, model_of
from penstockd.catalog import Catalog, Dataset, Kind
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


def catalog_of(later: bool, target: Path) -> Catalog:
    """The catalog with the datasets of all changes, before them or after them."""
    root = target / "protos/penstock/model/v1"
    root.mkdir(parents=True)
    models = {dataset_of(change): model_of(change, later) for change in CHANGES}
    files = []
    for name, text in models.items():
        if text is not None:
            (root / f"{name}.proto").write_text(text)
            files.append(f"penstock/model/v1/{name}.proto")
    bundled = resources.files("grpc_tools") / "_proto"
    folders = (target / "protos", ROOT / "protos", ROOT / "protos/vendor", bundled)
    output = target / "model.binpb"
    options = ["--include_imports", f"--descriptor_set_out={output}"]
    assert protoc.main(["protoc", *(f"-I{f}" for f in folders), *options, *files]) == 0
    return load_catalog(output)


@pytest.fixture(scope="module")
def before() -> Iterator[Catalog]:
    with folder() as target:
        yield catalog_of(False, target)


@pytest.fixture(scope="module")
def after() -> Iterator[Catalog]:
    with folder() as target:
        yield catalog_of(True, target)


def only(catalog: Catalog, changes: Sequence[str]) -> Catalog:
    """The datasets of some changes."""
    names = {dataset_of(change) for change in changes}
    return Catalog({d.name: d for d in catalog if d.name in names}, catalog.pool)


def applicable(empty: bool) -> list[str]:
    """The changes that can be applied to tables without bad values."""
    return [n for n, c in CHANGES.items() if (c.empty if empty else outcome(c)) is not NEVER]


def outcome(change: Change) -> Consent | None:
    """The consent for a table with the values of the change."""
    return change.full if change.values else change.empty


async def fill(connection: asyncpg.Connection[Any], dataset: Dataset, change: Change) -> None:
    """A record for each value, with keys in their order."""
    target = dataset.by_path[change.write]
    for index, (value, _) in enumerate(change.values):
        await insert(connection, dataset, f"k{index}", change.write, from_json(target, value))


async def insert(
    connection: asyncpg.Connection[Any], dataset: Dataset, key: str, path: str, value: Any
) -> None:
    target = dataset.by_path[path]
    stored = orjson.dumps(value).decode() if target.is_json and value is not None else value
    columns = {f.column: key if f.kind is Kind.STRING else 0 for f in dataset.key_fields}
    columns[target.column] = stored
    names = "".join(f', "{c}"' for c in columns)
    places = "".join(f", ${i + 1}" for i in range(len(columns)))
    await connection.execute(
        f'INSERT INTO data."{dataset.name}" (create_time, update_time, etag{names})'
        f" VALUES (now(), now(), 1{places})",
        *columns.values(),
    )


async def read(connection: asyncpg.Connection[Any], dataset: Dataset, path: str) -> list[Any]:
    """The JSON of a field of all records, by way of their messages."""
    chosen = ", ".join(f'"{f.column}"' for f in dataset.fields)
    rows = await connection.fetch(
        f'SELECT {chosen} FROM data."{dataset.name}" ORDER BY "{dataset.key.column}"'
    )
    codec, place = Codec(dataset, dataset.fields), [f.path for f in dataset.fields].index(path)
    target = dataset.by_path[path]
    values = []
    for row in rows:
        codec.message(tuple(row)).SerializeToString()
        value = row[place]
        if target.is_json and value is not None:
            value = json.loads(value)
        values.append(to_json(target, value))
    return values


def told(steps: Sequence[Step], change: str) -> list[Step]:
    """The steps of the dataset of a change."""
    return [s for s in steps if dataset_of(change) in re.findall(r"\w+", s.description)]


def consent_of(steps: Sequence[Step], change: str) -> Consent | None:
    """The consent that the steps of a change need together; None if there are no steps."""
    found = {s.consent for s in told(steps, change)}
    return next((c for c in (NEVER, COMMAND, START) if c in found), None)


async def test_on_empty_tables_every_change_is_applied_at_start(
    before: Catalog, after: Catalog, empty_url: str
) -> None:
    await apply_migration(empty_url, before)
    steps = await plan_migration(empty_url, after)
    assert {n: consent_of(steps, n) for n in CHANGES} == {n: c.empty for n, c in CHANGES.items()}
    never = [n for n, c in CHANGES.items() if c.empty is NEVER]
    await apply_migration(empty_url, mixed(before, after, never))
    assert await plan_migration(empty_url, mixed(before, after, never)) == []


def mixed(old: Catalog, new: Catalog, unchanged: Sequence[str]) -> Catalog:
    """The new model, except for some datasets that stay unchanged."""
    kept = {dataset_of(change) for change in unchanged}
    chosen = {d.name: old[d.name] if d.name in kept else d for d in new}
    return Catalog(chosen, new.pool)


async def test_on_full_tables_values_are_kept_converted_or_refused(
    before: Catalog, after: Catalog, empty_url: str
) -> None:
    await apply_migration(empty_url, before)
    connection = await asyncpg.connect(empty_url)
    try:
        for name, change in CHANGES.items():
            if change.before is not None:
                await fill(connection, before[dataset_of(name)], change)
        never = [n for n, c in CHANGES.items() if c.empty is NEVER]
        wanted = mixed(before, after, never)
        steps = await plan_migration(empty_url, wanted)
        expected = {n: c.full if c.values else c.empty for n, c in CHANGES.items()}
        expected |= dict.fromkeys(never, None)
        assert {n: consent_of(steps, n) for n in CHANGES} == expected
        for name, change in CHANGES.items():
            said = [s.description for s in told(steps, name)]
            assert not change.values or not change.says or change.says in " ".join(said), said

        with pytest.raises(MigrationNeeded):
            await apply_migration(empty_url, wanted)
        await apply_migration(empty_url, wanted, destructive=True)
        assert await plan_migration(empty_url, wanted) == []
        for name, change in CHANGES.items():
            if change.after is not None and name not in never:
                values = await read(connection, after[dataset_of(name)], change.read)
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
            dataset = before[dataset_of(name)]
            for index, value in enumerate(change.refused):
                stored = from_json(dataset.by_path["v"], value)
                await insert(connection, dataset, f"bad{index}", "v", stored)
        steps = await plan_migration(empty_url, after)
        assert {n: consent_of(steps, n) for n in refused} == dict.fromkeys(refused, NEVER)
        for name, change in refused.items():
            [said] = [s.description for s in told(steps, name) if s.consent is NEVER]
            assert "bad0: " in said or (change.empty is NEVER and "records cannot" in said), said
        for destructive in (False, True):
            with pytest.raises(MigrationFailed, match="bad0: "):
                await apply_migration(empty_url, after, destructive=destructive)
        for name, change in refused.items():
            values = await read(connection, before[dataset_of(name)], "v")
            assert values == list(change.refused), name
        # The other datasets are migrated.
        await apply_migration(empty_url, mixed(before, after, list(refused)))
    finally:
        await connection.close()


async def test_the_log_is_closed_if_its_images_would_read_differently(
    before: Catalog, after: Catalog, empty_url: str
) -> None:
    await apply_migration(empty_url, before)
    connection = await asyncpg.connect(empty_url)
    try:
        await connection.execute("INSERT INTO hub.pending (revision, row_count) VALUES (1, 1)")
        await connection.executemany(
            "INSERT INTO hub.change (revision, ordinal, dataset, key, operation)"
            " VALUES (1, $1, $2, 'k', 1)",
            [(i, d.name) for i, d in enumerate(before)],
        )
        steps = await plan_migration(empty_url, after)
        [closing] = [s for s in steps if s.description.startswith("the change log up to now")]
        assert closing.consent is COMMAND
        named = set(re.findall(r"\w+", closing.description))
        expected = {n for n, c in CHANGES.items() if c.closes}
        assert {n for n in CHANGES if dataset_of(n) in named} == expected
        # The manifest of an earlier version does not say how numbers are encoded.
        await connection.execute(
            "UPDATE hub.model SET manifest = regexp_replace(manifest::text,"
            " '\"(key_)?wire\":(null|\"[A-Z]+\")', '\"\\1wire\":null', 'g')::json"
        )
        steps = await plan_migration(empty_url, before)
        assert steps == [], "an upgrade alone changes nothing"
    finally:
        await connection.close()


async def test_writes_work_after_references_have_changed(
    before: Catalog, after: Catalog, empty_url: str
) -> None:
    """Triggers note lost references; one that names a missing column makes every write fail."""
    never = [n for n, c in CHANGES.items() if c.empty is NEVER]
    wanted = mixed(before, after, never)
    await apply_migration(empty_url, before)
    connection = await asyncpg.connect(empty_url)
    try:
        await apply_migration(empty_url, wanted)
        for dataset in wanted:
            path = next(f.path for f in dataset.fields if f.path == "source_id")
            await insert(connection, dataset, "k", path, "s")
            await connection.execute(f"UPDATE data.\"{dataset.name}\" SET source_id = 't'")
            await connection.execute(f'DELETE FROM data."{dataset.name}"')
        references = {f"{d.name}.{f.path}" for d in wanted for f in d.references.values()}
        indexed = await connection.fetch(
            "SELECT i.indrelid::regclass::text || '.' || a.attname FROM pg_index AS i"
            " JOIN pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]"
        )
        assert {f"data.{r}" for r in references} <= {row[0] for row in indexed}
    finally:
        await connection.close()


async def test_a_oneof_of_which_a_record_has_set_several_is_refused(
    before: Catalog, after: Catalog, empty_url: str
) -> None:
    name = dataset_of("fields become a oneof")
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
        assert [r[0] for r in await connection.fetch(sql)] == [
            "p_no_longer_indexed.v~index",
            "p_no_longer_unique.v~unique",
            "p_unique_becomes_indexed.v~unique",
        ]
        never = [n for n, c in CHANGES.items() if c.empty is NEVER]
        after = mixed(before, after, never)
        await apply_migration(empty_url, after)
        wanted = [
            "p_indexed_from_now_on.v~index",
            "p_unique_becomes_indexed.v~index",
            "p_unique_from_now_on.v~unique",
        ]
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
