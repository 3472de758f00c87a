"""The change log is closed where a new model would show values of former fields and members."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from penstockd.catalog import Catalog
from penstockd.store.former_fields import find_former_fields
from penstockd.store.migrate import apply_migration, plan_migration
from worlds import COMMON, HEAD, compiled

CLOSED = "the change log up to now is closed"
LIST = "message M { string a = 1; %s } repeated M v = 2;"
MAP = "message M { string a = 1; %s } map<string, M> v = 2;"
NESTED = "message M { string a = 1; %s } message N { repeated M m = 1; } map<string, N> v = 2;"


def model(folder: Path, body: str) -> Catalog:
    """A model of one dataset with these fields."""
    folder.mkdir()
    key = "string probe_id = 1 [(penstock.options.v1.field).key = true];"
    option = "option (penstock.options.v1.dataset) = {title: 'Probes'};"
    return compiled(folder, f"{HEAD} message Probe {{ {option} {key} {body} {COMMON}")


async def log_change(connection: asyncpg.Connection[Any]) -> None:
    """A change of a probe that has no number yet."""
    await connection.execute("INSERT INTO hub.pending (revision, row_count) VALUES (1, 1)")
    await connection.execute(
        "INSERT INTO hub.change (revision, ordinal, dataset, key, operation)"
        " VALUES (1, 0, 'probes', 'k', 1)"
    )


@pytest.mark.parametrize(
    ("bodies", "words"),
    [
        (("string secret = 7;", "", "string nickname = 7;"), "probes.nickname"),
        (("string secret = 7;", "", "int32 secret = 7;"), "probes.secret"),
        (("string secret = 7;", "", "string secret = 7;"), ""),
        (("string secret = 7;", "", "string nickname = 8;"), ""),
        (("string secret = 7;", "string nickname = 7;", "string nickname = 7; bool b = 8;"), ""),
        ((LIST % "string s = 2;", LIST % "", LIST % "string n = 2;"), "former members of probes.v"),
        ((MAP % "string s = 2;", MAP % "", MAP % "string n = 2;"), "former members of probes.v"),
        ((MAP % "string s = 2;", MAP % "", MAP % "sint32 s = 2;"), "former members of probes.v"),
        ((NESTED % "bool s = 2;", NESTED % "", NESTED % "bool n = 2;"), "former members of probes"),
        ((LIST % "string s = 2;", LIST % "", LIST % "string s = 2;"), ""),
        ((LIST % "string s = 2;", LIST % "", LIST % "string n = 3;"), ""),
    ],
)
async def test_the_log_closes_if_a_number_is_used_again(
    tmp_path: Path, empty_url: str, bodies: tuple[str, ...], words: str
) -> None:
    *earlier, last = [model(tmp_path / str(i), body) for i, body in enumerate(bodies)]
    for each in earlier:
        await apply_migration(empty_url, each)
    connection = await asyncpg.connect(empty_url)
    try:
        await log_change(connection)
        steps = [s.description for s in await plan_migration(empty_url, last)]
    finally:
        await connection.close()
    closing = [s for s in steps if s.startswith(CLOSED)]
    assert len(closing) == bool(words), steps
    assert words in "".join(closing)


async def test_a_change_that_another_session_numbers_is_closed_too(
    tmp_path: Path, empty_url: str
) -> None:
    before, after = (model(tmp_path / k, f"{k} v = 2;") for k in ("int32", "sint32"))
    await apply_migration(empty_url, before)
    connection = await asyncpg.connect(empty_url)
    waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    try:
        await log_change(connection)
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock(hashtext('penstock.sequencer'))")
            closing = asyncio.create_task(apply_migration(empty_url, after, destructive=True))
            for _ in range(1500):
                if closing.done() or await connection.fetchval(waits):
                    break
                await asyncio.sleep(0.02)
            assert not closing.done()
        assert [s.description for s in await closing if s.description.startswith(CLOSED)]
        left = "SELECT (SELECT count(*) FROM hub.pending), count(*) FROM hub.log_transaction"
        assert tuple(await connection.fetchrow(left) or ()) == (0, 0)
        assert await connection.fetchval("SELECT last_number = oldest_number FROM hub.log_head")
    finally:
        await connection.close()


async def test_a_model_counts_as_earlier_by_the_time_of_writing(
    tmp_path: Path, empty_url: str
) -> None:
    """What was written before a model change may be numbered after it."""
    before, after = model(tmp_path / "a", "string s = 7;"), model(tmp_path / "b", "")
    await apply_migration(empty_url, before)
    connection: Any = await asyncpg.connect(empty_url)
    try:
        await log_change(connection)
        await apply_migration(empty_url, after)
        await connection.execute("SELECT hub.stamp()")
        assert await find_former_fields(connection, after) == {"probes"}
        await connection.execute("UPDATE hub.log_transaction SET write_time = now()")
        assert await find_former_fields(connection, after) == frozenset()
    finally:
        await connection.close()
