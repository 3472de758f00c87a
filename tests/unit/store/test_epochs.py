"""The hub notices by itself that its database has gone back in time, once, and leads on the numbers
that anybody compares."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from penstockd.audit.checkpoint import CheckpointFile, CheckpointKey
from penstockd.audit.declared_epoch import open_epoch
from penstockd.audit.sealer import Sealer
from penstockd.store.database import Connection, Database
from penstockd.store.epochs import Memory, Undeclared, notice_epoch

#: Tables whose rows each keep the revision that they were written with, which is compared with no
#: other than that of hub.revision and hub.policy.
KEEPING = {"change", "log_transaction", "pending", "policy_revision"}
FOREIGN = b"elsewher"


@pytest.fixture
async def database(store_url: str) -> AsyncIterator[Database]:
    database = Database(store_url, size=2)
    await database.open()
    yield database
    await database.close()


async def epochs(database: Database) -> list[str]:
    async with database.connection() as connection:
        rows = await connection.fetch("SELECT because FROM hub.epoch ORDER BY epoch")
        return [row[0] for row in rows]


async def counters(connection: Connection) -> dict[str, int]:
    """Every number of the store that rises with changes and that somebody compares."""
    rows = await connection.fetch(
        "SELECT table_name FROM information_schema.columns"
        " WHERE table_schema = 'hub' AND column_name = 'revision'"
        " AND table_name NOT LIKE 'change\\_%'"
    )
    names = {row[0] for row in rows}
    assert names >= KEEPING, "a table that is stated here is gone"
    found = {n: await connection.fetchval(f"SELECT revision FROM hub.{n}") for n in names - KEEPING}
    found["revision"] = await connection.fetchval("SELECT last_value FROM hub.revision")
    return found


async def remembering(database: Database, *, seen: datetime) -> Memory:
    """A process that heard, at a time, of a change which the database has not."""
    memory = Memory()
    memory.note(7, FOREIGN, seen)
    async with database.connection() as connection:
        await notice_epoch(connection, memory)
    return memory


async def test_an_epoch_leads_on_every_number_that_is_compared(database: Database) -> None:
    async with database.connection() as connection:
        before = await counters(connection)
        assert {"policy", "trust", "webhook_revision", "revision"} <= before.keys()
        await connection.fetchval("SELECT hub.open_epoch('restore', true, NULL)")
        after = await counters(connection)
        [document] = await connection.fetch(
            "SELECT comment FROM hub.policy_revision AS r JOIN hub.policy AS p USING (revision)"
        )
    still = {name for name, number in after.items() if number < before[name] + 1000}
    assert not still, "hub.open_epoch leaves these, which a restored database gives out again"
    assert document[0] == "the database has gone back in time"


@pytest.mark.parametrize("column", ["cluster", "timeline"])
async def test_a_server_that_is_another_is_noticed_by_the_first_connection(
    database: Database, column: str
) -> None:
    async with database.connection() as connection:
        before = await counters(connection)
        await connection.execute(f"UPDATE hub.epoch_head SET {column} = 'of before'")
    assert await epochs(database) == []  # negative control: connections of before notice nothing
    made = await asyncio.gather(*(database.connect() for _ in range(5)))
    for connection in made:
        await connection.close()
    assert await epochs(database) == [f"another {column}"]
    async with database.connection() as connection:
        assert (await counters(connection))["revision"] > before["revision"] + 1000


async def test_what_a_process_remembers_is_missed_once(database: Database) -> None:
    forgotten: list[str] = []
    database.memory.when_undone(lambda: forgotten.append("all"))
    now = datetime.now(UTC)
    first = await remembering(database, seen=now)
    assert await epochs(database) == ["changes are missing"]
    second = await remembering(database, seen=now)  # another process, that heard it, too
    assert await epochs(database) == ["changes are missing"] and first.epoch == second.epoch
    # One that knows of no loss is told of the epoch, and forgets what it knew to be stored.
    await (await database.connect()).close()
    assert forgotten == ["all"]
    await remembering(database, seen=datetime.now(UTC) + timedelta(seconds=5))
    assert await epochs(database) == ["changes are missing"] * 2


async def test_what_is_there_is_not_missed(database: Database) -> None:
    async with database.connection() as connection:
        mark = await connection.fetchval("SELECT mark FROM hub.log_head")
        memory = Memory()
        memory.note(0, mark, datetime.now(UTC))
        await notice_epoch(connection, memory)
        await notice_epoch(connection, Memory())
    assert await epochs(database) == []


async def test_a_file_with_a_checkpoint_that_the_database_has_not_is_noticed(
    database: Database, tmp_path: Path
) -> None:
    key, file = CheckpointKey(os.urandom(32)), CheckpointFile(tmp_path / "checkpoints.jsonl")
    await Sealer(database, key, file).seal(checkpoint=True)
    await Sealer(database, key, file).seal()
    assert await epochs(database) == []  # the file's end is there
    async with database.transaction() as connection:
        await connection.execute("DELETE FROM hub.audit_checkpoint")
    for _ in range(2):
        await Sealer(database, key, file).seal()
    assert await epochs(database) == ["checkpoints are missing"]


async def test_to_declare_what_the_hub_has_noticed_tells_nobody_again(
    database: Database, tmp_path: Path
) -> None:
    """Also after a failover that lost nothing, when the audit goes on for a while."""
    key, file = CheckpointKey(os.urandom(32)), CheckpointFile(tmp_path / "checkpoints.jsonl")
    sealer = Sealer(database, key, file)
    async with database.connection() as connection:
        await connection.execute("UPDATE hub.epoch_head SET timeline = 'of before'")
        await notice_epoch(connection, database.memory)
    await sealer.seal(checkpoint=True)
    noticed = await open_epoch(database, sealer, file, "failover")
    assert noticed.checkpoint is None and await epochs(database) == ["failover"]
    # Another that nobody has noticed is begun.
    assert (await open_epoch(database, sealer, file, "restore")).number == noticed.number + 1
    # Nor is one of before taken for what was undone after it.
    await remembering(database, seen=datetime.now(UTC) + timedelta(seconds=5))
    await sealer.seal(checkpoint=True)
    async with database.transaction() as connection:
        await connection.execute(
            "DELETE FROM hub.audit_checkpoint"
            " WHERE number = (SELECT max(number) FROM hub.audit_checkpoint)"
        )
    assert (await open_epoch(database, sealer, file, "restore")).checkpoint is not None
    assert await epochs(database) == ["failover", "restore", "changes are missing", "restore"]


async def test_health_says_so_until_it_is_declared(database: Database) -> None:
    undeclared = Undeclared()
    async with database.connection() as connection:
        assert await undeclared.look(connection, database.memory)
    await remembering(database, seen=datetime.now(UTC))
    async with database.connection() as connection:
        assert not await undeclared.look(connection, database.memory)
        await connection.execute("UPDATE hub.epoch SET declared = true")
        assert await undeclared.look(connection, database.memory)
