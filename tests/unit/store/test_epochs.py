"""The hub notices once, by itself, that its database has gone back in time, and moves all numbers
forward that anybody compares."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from penstockd.audit.checkpoint import CheckpointFile, CheckpointKey
from penstockd.audit.declared_epoch import open_epoch
from penstockd.audit.sealer import Sealer
from penstockd.errors import DatabaseUnavailable
from penstockd.store.database import Connection, Database, open_database
from penstockd.store.epochs import Memory, Undeclared, notice_epoch

#: Tables whose rows keep the revision of their last write, which is compared only with those of
#: hub.revision and hub.policy; and usage_digest, which numbers the digests of a day.
KEEPING = {"change", "log_transaction", "pending", "policy_revision", "usage_digest"}
FOREIGN = b"elsewher"


async def epochs(database: Database) -> list[str]:
    async with database.connection() as connection:
        rows = await connection.fetch("SELECT because FROM hub.epoch ORDER BY epoch")
        return [row[0] for row in rows]


async def counters(connection: Connection) -> dict[str, int]:
    """Every number of the store that increases with changes and that somebody compares."""
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


async def chain(database: Database) -> list[UUID]:
    """The ids of all epochs, the newest last."""
    async with database.connection() as connection:
        return list(await connection.fetchval("SELECT hub.epoch_chain()"))


async def remembering(database: Database, *, seen: list[UUID]) -> Memory:
    """A process that knew of a change which the database lacks, when the epochs were these."""
    memory = Memory()
    memory.confirm(7, FOREIGN, seen)
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
    assert await epochs(database) == []  # negative control: earlier connections notice nothing
    made = await asyncio.gather(*(database.connect() for _ in range(5)))
    for connection in made:
        await connection.close()
    assert await epochs(database) == [f"another {column}"]
    async with database.connection() as connection:
        assert (await counters(connection))["revision"] > before["revision"] + 1000


async def test_what_a_process_remembers_is_missed_once(database: Database) -> None:
    forgotten: list[str] = []
    database.memory.when_undone(lambda: forgotten.append("all"))
    now = await chain(database)
    first = await remembering(database, seen=now)
    assert await epochs(database) == ["changes are missing"]
    second = await remembering(database, seen=now)  # another process that knew it, too
    assert await epochs(database) == ["changes are missing"] and first.epochs == second.epochs
    # Knowledge from the epoch before says nothing about the new one.
    assert first.number is None
    # A process without a loss learns of the epoch, and forgets the places that it knew to be
    # stored.
    await (await database.connect()).close()
    assert forgotten == ["all"]
    await remembering(database, seen=await chain(database))
    assert await epochs(database) == ["changes are missing"] * 2


@pytest.mark.parametrize("hours", [-10, 10])
async def test_no_clock_says_whether_a_return_was_noticed(database: Database, hours: int) -> None:
    """The clock of a standby that takes over, ahead or behind, neither opens nor hides an epoch."""
    now = await chain(database)
    await remembering(database, seen=now)
    async with database.connection() as connection:
        await connection.execute(
            "UPDATE hub.epoch SET begin_time = begin_time + make_interval(hours => $1)", hours
        )
    for _ in range(4):
        await remembering(database, seen=now)
    assert await epochs(database) == ["changes are missing"]
    await remembering(database, seen=await chain(database))
    assert await epochs(database) == ["changes are missing"] * 2


class Volume:
    """The epochs of a database, saved, and put back as a copy of its volume would."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def keep(self) -> None:
        for name in ("epoch", "epoch_head"):
            await self._connection.execute(f"CREATE TABLE kept_{name} AS TABLE hub.{name}")

    async def put_back(self) -> None:
        await self._connection.execute("DELETE FROM hub.epoch; DELETE FROM hub.epoch_head")
        await self._connection.execute(
            "INSERT INTO hub.epoch OVERRIDING SYSTEM VALUE TABLE kept_epoch;"
            "INSERT INTO hub.epoch_head TABLE kept_epoch_head;"
            "ALTER TABLE hub.epoch ALTER COLUMN epoch RESTART WITH 1"
        )


async def test_a_volume_that_is_put_back_twice_begins_two_epochs_of_one_number(
    database: Database,
) -> None:
    async with database.connection() as connection:
        volume = Volume(connection)
        await volume.keep()
        memories: list[Memory] = []
        for _ in range(3):
            # The database has the place that the process remembers; only its epoch is lost.
            memory = memories[-1] if memories else Memory()
            mark = await connection.fetchval("SELECT mark FROM hub.log_head")
            memory.confirm(0, mark, await chain(database))
            if not memories:  # another process that misses changes notices the first return
                await remembering(database, seen=list(memory.epochs))
            await notice_epoch(connection, memory)
            memories.append(memory)
            assert [row[0] for row in await connection.fetch("SELECT epoch FROM hub.epoch")] == [1]
            seen = memory.epochs[-1]
            late = Memory(epochs=memory.epochs)
            await volume.put_back()
            await notice_epoch(connection, memory)
            # Negative control: by its number the epoch of this future is that of the one before.
            numbers = await connection.fetch("SELECT epoch, because FROM hub.epoch")
            assert [tuple(row) for row in numbers] == [(1, "an epoch is missing")]
            assert memory.epochs[-1] != seen
            # Another process that knew the lost epoch does not begin another one.
            await notice_epoch(connection, late)
            assert late.epochs == memory.epochs and len(await epochs(database)) == 1


async def test_a_replaced_server_is_believed_once_its_return_is_declared(
    database: Database,
) -> None:
    """As if a volume from before a failover were put back under processes that saw the failover."""
    here = database.memory.servers.server
    assert here is not None
    database.memory.servers.note(here._replace(timeline="FFFFFFFF"))
    async with open_database(database.dsn, size=1) as other, other.connection() as connection:
        # The negative control: epochs that processes begin by themselves do not count.
        for declared in (False, False, True):
            with pytest.raises(DatabaseUnavailable, match="replaced"):
                await database.look_at_server()
            await connection.fetchval("SELECT hub.open_epoch('restore', $1, NULL)", declared)
    await database.look_at_server()
    assert database.memory.servers.server == here


async def test_two_futures_have_no_number_in_common(database: Database) -> None:
    """Processes compare revisions to see whether data that they have read is still current."""
    async with database.connection() as connection:
        futures = []
        for _ in range(2):
            transaction = connection.transaction()
            await transaction.start()
            last = await connection.fetchval("SELECT last_value FROM hub.revision")
            await connection.fetchval("SELECT hub.open_epoch('restore', true, NULL)")
            futures.append(await counters(connection))
            await transaction.rollback()
            await connection.execute("SELECT setval('hub.revision', $1)", last)
    one, other = futures
    near = {name for name in one if abs(one[name] - other[name]) < 100}
    assert not near, "these begin alike in both futures, and then count alike"


async def test_the_epochs_of_before_there_were_ids_are_a_chain(
    database: Database,
) -> None:
    """Epochs that begin later continue the chain that the migration makes of them."""
    async with database.connection() as connection:
        for _ in range(3):
            await connection.fetchval("SELECT hub.open_epoch('restore', true, NULL)")
        found = await chain(database)
        ids = [row[0] for row in await connection.fetch("SELECT id FROM hub.epoch ORDER BY epoch")]
    assert len(set(found)) == 4 and found[1:] == ids


async def test_what_is_there_is_not_missed(database: Database) -> None:
    async with database.connection() as connection:
        mark = await connection.fetchval("SELECT mark FROM hub.log_head")
        memory = Memory()
        memory.confirm(0, mark, await chain(database))
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


@pytest.mark.parametrize("noted", [True, False], ids=["noted", "of an earlier version"])
async def test_no_clock_says_whether_a_lost_checkpoint_was_noticed(
    database: Database, tmp_path: Path, noted: bool
) -> None:
    """The sealer checks four times a second: with a clock that is behind, each check would begin an
    epoch."""
    key, file = CheckpointKey(os.urandom(32)), CheckpointFile(tmp_path / "checkpoints.jsonl")
    await Sealer(database, key, file).seal(checkpoint=True)
    last = file.last()
    assert last is not None and list(last.epochs) == await chain(database)
    if not noted:
        file.path.write_text(replace(last, epochs=()).line() + "\n")
        assert file.last() == last and "epochs" not in file.path.read_text()
    async with database.transaction() as connection:
        await connection.execute("DELETE FROM hub.audit_checkpoint")
    for hours in (-10, 10):
        for _ in range(3):
            await Sealer(database, key, file).seal()
        async with database.connection() as connection:
            await connection.execute(
                "UPDATE hub.epoch SET begin_time = begin_time + make_interval(hours => $1)", hours
            )
    assert await epochs(database) == ["checkpoints are missing"]


async def test_to_declare_what_the_hub_has_noticed_tells_nobody_again(
    database: Database, tmp_path: Path
) -> None:
    """Even after a failover that lost nothing, when the audit has continued for a while."""
    key, file = CheckpointKey(os.urandom(32)), CheckpointFile(tmp_path / "checkpoints.jsonl")
    sealer = Sealer(database, key, file)
    async with database.connection() as connection:
        await connection.execute("UPDATE hub.epoch_head SET timeline = 'of before'")
        await notice_epoch(connection, database.memory)
    await sealer.seal(checkpoint=True)
    noticed = await open_epoch(database, sealer, file, "failover")
    assert noticed.checkpoint is None and await epochs(database) == ["failover"]
    # Declaring a return that nobody has noticed begins an epoch.
    assert (await open_epoch(database, sealer, file, "restore")).number == noticed.number + 1
    # Nor is an earlier one taken for a return that came after it.
    await remembering(database, seen=await chain(database))
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
    await remembering(database, seen=await chain(database))
    async with database.connection() as connection:
        assert not await undeclared.look(connection, database.memory)
        await connection.execute("UPDATE hub.epoch SET declared = true")
        assert await undeclared.look(connection, database.memory)
