"""Models whose keys change are refused, whatever the table holds; their other fields migrate."""

from __future__ import annotations

from pathlib import Path

import asyncpg
import pytest

from penstockd.catalog import Catalog
from penstockd.catalog.comparison import match_fields
from penstockd.catalog.manifest import write_manifest
from penstockd.store.key_changes import find_key_change
from penstockd.store.migrate import MigrationFailed, apply_migration, plan_migration
from penstockd.store.step import Consent
from worlds import COMMON, HEAD, compiled

KEY = "[(penstock.options.v1.field).key = true]"
NUMBER, TEXT, MORE = f"int64 a = 1 {KEY};", f"string b = 2 {KEY};", f"int32 c = 3 {KEY};"
PLAIN_NUMBER, PLAIN_TEXT = "int64 a = 1;", "string b = 2;"


def model(folder: Path, *fields: str) -> Catalog:
    option = 'option (penstock.options.v1.dataset) = {title: "Probes"};'
    return compiled(folder, HEAD + f"message Probe {{ {option} {' '.join(fields)} {COMMON}")


@pytest.mark.parametrize(
    ("before", "after", "says"),
    [
        ((TEXT,), (f"int64 b = 2 {KEY};",), "from b (STRING) to b (INT64)"),
        ((NUMBER,), (f"int32 a = 1 {KEY};",), "from a (INT64) to a (INT32)"),
        ((NUMBER,), (f"string a = 1 {KEY};",), "from a (INT64) to a (STRING)"),
        ((NUMBER, PLAIN_TEXT), (NUMBER, TEXT), "from a (INT64) to a (INT64), b (STRING)"),
        ((PLAIN_NUMBER, TEXT), (NUMBER, TEXT), "from b (STRING) to a (INT64), b (STRING)"),
        ((NUMBER, TEXT), (NUMBER, PLAIN_TEXT), "from a (INT64), b (STRING) to a (INT64)"),
        ((NUMBER, TEXT), (PLAIN_NUMBER, TEXT), "from a (INT64), b (STRING) to b (STRING)"),
        ((NUMBER, TEXT), (TEXT, NUMBER), "to b (STRING), a (INT64)"),
        ((NUMBER, TEXT), (NUMBER, MORE), "to a (INT64), c (INT32)"),
        ((NUMBER,), (TEXT,), "from a (INT64) to b (STRING)"),
        ((NUMBER, PLAIN_TEXT), (PLAIN_NUMBER, TEXT), "from a (INT64) to b (STRING)"),
    ],
)
def test_another_key_is_found(
    tmp_path: Path, before: tuple[str, ...], after: tuple[str, ...], says: str
) -> None:
    old, new = (write_manifest(model(tmp_path, *f)).datasets["probes"] for f in (before, after))
    for was, becomes, changes in ((old, new, True), (old, old, False), (new, new, False)):
        key = [f for f in was.fields if f.key]
        matches = match_fields(was.fields, becomes.fields)
        step = find_key_change("probes", key, becomes.fields, matches)
        assert (step is not None) == changes
        if step is not None:
            assert step.consent is Consent.NEVER and says in step.description


async def test_another_key_is_refused(tmp_path: Path, empty_url: str) -> None:
    old, new = model(tmp_path, NUMBER, TEXT), model(tmp_path, NUMBER, PLAIN_TEXT)
    await apply_migration(empty_url, old)
    (step,) = await plan_migration(empty_url, new)
    assert step.consent is Consent.NEVER and "make another dataset" in step.description
    for destructive in (False, True):
        with pytest.raises(MigrationFailed, match="cannot change their keys"):
            await apply_migration(empty_url, new, destructive=destructive)
    assert await plan_migration(empty_url, old) == []


async def test_other_fields_of_such_a_dataset_migrate(tmp_path: Path, empty_url: str) -> None:
    """Values are converted record by record, and a field of the key may get another name."""
    old = model(tmp_path, NUMBER, TEXT, "string value = 5; string gone = 6;")
    renamed = TEXT.replace(" b ", " name ")
    new = model(tmp_path, NUMBER, renamed, "int32 value = 5; optional string more = 7;")
    await apply_migration(empty_url, old)
    connection = await asyncpg.connect(empty_url)
    insert = (
        "INSERT INTO data.probes (a, b, value, create_time, update_time)"
        " VALUES ($1, $2, $3, now(), now())"
    )
    try:
        for row in ((1, "x~y", "7"), (-1, "%", "8")):
            await connection.execute(insert, *row)
        await apply_migration(empty_url, new, destructive=True)
        assert await plan_migration(empty_url, new) == []
        sql = 'SELECT "~key", a, name, value FROM data.probes ORDER BY a'
        rows = [tuple(row) for row in await connection.fetch(sql)]
        assert rows == [("-1~%25", -1, "%", 8), ("1~x%7Ey", 1, "x~y", 7)]
        with pytest.raises(asyncpg.UniqueViolationError):
            await connection.execute(insert.replace(", b,", ", name,"), 1, "x~y", 1)
    finally:
        await connection.close()
