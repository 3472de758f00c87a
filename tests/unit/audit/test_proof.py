"""A2 in PostgreSQL: the sealer misses nothing, and every change to its tables is found."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog

from chance import SEED
from harness import folder
from penstockd.audit.chain import COLUMNS, CONTENT, VALUES, content_of
from penstockd.audit.checkpoint import Checkpoint, CheckpointFile, CheckpointKey
from penstockd.audit.entry import Entry, insert_entries
from penstockd.audit.journal import Journal
from penstockd.audit.proof import verify_database
from penstockd.audit.sealer import Sealer
from penstockd.audit.shown import digest_of
from penstockd.audit.stored_checkpoints import insert_checkpoint, read_checkpoints
from penstockd.audit.verify import Fault, Finding
from penstockd.audit.witness import CheckpointWitness
from penstockd.auditor import Evidence, summarise_report
from penstockd.errors import Conflict
from penstockd.store.database import Connection, Database

KEY = CheckpointKey(b"k" * 32)
ENTRIES = 30
RULE = '{"dataset":"customers","fields":{},"roles":[],"row_filters":[]}'


def entry(number: int, **more: Any) -> Entry:
    """An entry in which no column is NULL."""
    values: dict[str, Any] = {
        "trace_id": "t" * 32, "consumer_id": "crm", "credential_id": "c1", "dataset": "customers",
        "record_key": f"c{number}", "query": '{"filter": "é"}', "row_count": 1, "byte_count": 9,
        "receipt_id": "r1", "peer": "127.0.0.1", "surface": "REST", "shown": digest_of(RULE),
        "low_key": "a", "high_key": "b", "keys": b"P1",
    }  # fmt: skip
    return Entry(f"request-{number}", "/Get", 3, **{**values, **more})


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Database]:
    database = Database(url, size=12)
    await database.open()
    try:
        yield database
    finally:
        await database.close()


@pytest.fixture
async def database(store_url: str) -> AsyncIterator[Database]:
    async with opened(store_url) as database:
        async with database.connection() as connection:
            await connection.execute("SELECT hub.add_audit_partitions(1)")
            await connection.execute("UPDATE hub.audit_head SET cluster = hub.cluster()")
            await connection.execute(
                "INSERT INTO hub.audit_shown VALUES ($1, $2)", digest_of(RULE), RULE
            )
        yield database


@pytest.fixture
def file() -> Any:
    with folder() as path:
        yield CheckpointFile(path / "audit" / "checkpoints.jsonl")


async def findings(
    connection: Connection, outside: list[Checkpoint] | None = None, **more: Any
) -> list[Finding]:
    return (await verify_database(connection, [KEY.public], outside or [], **more)).findings


async def sealed_log(database: Database, file: CheckpointFile) -> Sealer:
    """ENTRIES entries, with checkpoints after 10, 20 and all of them."""
    sealer = Sealer(database, KEY, file, interval=3600)
    for at in range(0, ENTRIES, 10):
        async with database.connection() as connection:
            await insert_entries(connection, [entry(i) for i in range(at + 1, at + 11)])
        assert await sealer.seal(checkpoint=True) == 10
    return sealer


#: SQL that changes each column of the entry with sequence 15 without violating a constraint.
CHANGES = {
    name: f"{name} || 'x'" for name, (number, _) in COLUMNS.items() if number == 25
} | {
    "entry_time": "entry_time + interval '1 microsecond'",
    "txid": "(txid::text::bigint + 1)::text::xid8",
    "policy_revision": "policy_revision # 1",
    "row_count": "row_count # 1",
    "byte_count": "byte_count # 1",
    "query": "'{\"filter\":\"é\"}'::json",
    "shown": f"'\\x{digest_of('x').hex()}'::bytea",
    "keys": "'\\x5032'::bytea",
}  # fmt: skip
AT = "entry_id = (SELECT entry_ids[5] FROM hub.audit_seal ORDER BY first_sequence OFFSET 1 LIMIT 1)"
SEALS = "hub.audit_seal WHERE first_sequence = 11"

#: Tampering -> the sequence where it must be found (0: no place in a chain), and its kind.
TAMPERINGS: dict[str, tuple[str, int, Fault]] = {
    **{
        f"change {name}": (f"UPDATE hub.audit_entry SET {name} = {sql} WHERE {AT}", 15,
                           Fault.CHANGED)
        for name, sql in CHANGES.items()
    },
    **{
        f"NULL in {name}": (f"UPDATE hub.audit_entry SET {name} = NULL WHERE {AT}", 15,
                            Fault.CHANGED)
        for name in ("trace_id", "consumer_id", "record_key", "query", "row_count", "keys")
    },
    "change entry_id": (f"UPDATE hub.audit_entry SET entry_id = 9999 WHERE {AT}", 15,
                        Fault.DELETED),
    "change day": (f"UPDATE hub.audit_entry SET day = day + 1 WHERE {AT}", 15, Fault.DELETED),
    "delete": (f"DELETE FROM hub.audit_entry WHERE {AT}", 15, Fault.DELETED),
    "delete with its seal": (
        f"DELETE FROM hub.audit_entry WHERE {AT};"
        "UPDATE hub.audit_seal SET entry_ids = entry_ids[1:4] || entry_ids[6:10],"
        " hashes = substr(hashes, 1, 4 * 32) || substr(hashes, 5 * 32 + 1)"
        " WHERE first_sequence = 11", 15, Fault.CHANGED),
    "delete a group": ("DELETE FROM hub.audit_seal WHERE first_sequence = 11", 11, Fault.DELETED),
    "insert": (
        "INSERT INTO hub.audit_entry (entry_id, txid, entry_time, request_id, policy_revision,"
        " method, outcome)"
        " VALUES (7777, '3', now() - interval '1 hour', 'forged', 1, '/Get', 'OK')",
        0, Fault.INSERTED),
    "insert with a seal": (
        "INSERT INTO hub.audit_entry (entry_id, txid, request_id, policy_revision, method, outcome)"
        " VALUES (7777, '3', 'forged', 1, '/Get', 'OK');"
        "UPDATE hub.audit_seal SET entry_ids = entry_ids[1:4] || 7777::bigint || entry_ids[5:10],"
        " hashes = substr(hashes, 1, 4 * 32) || sha256('x') || substr(hashes, 4 * 32 + 1)"
        " WHERE first_sequence = 11", 15, Fault.INSERTED),
    "reorder": (
        "UPDATE hub.audit_seal SET entry_ids = entry_ids[1:4] || entry_ids[6] || entry_ids[5]"
        " || entry_ids[7:10] WHERE first_sequence = 11", 15, Fault.REORDERED),
    "truncate": (
        "DELETE FROM hub.audit_entry WHERE entry_id IN (SELECT unnest(entry_ids) FROM"
        " hub.audit_seal WHERE first_sequence = 21);"
        "DELETE FROM hub.audit_seal WHERE first_sequence = 21;"
        "UPDATE hub.audit_chain SET last_sequence = 20", 21, Fault.TRUNCATED),
    "change a rule": ("UPDATE hub.audit_shown SET content = content || ' '", 0,
                      Fault.RULE_CHANGED),
    "lose a rule": ("DELETE FROM hub.audit_shown", 0, Fault.RULE_CHANGED),
    "change a checkpoint": ("UPDATE hub.audit_checkpoint SET sequence = 9 WHERE number = 1", 0,
                            Fault.CHECKPOINT),
    "lose a checkpoint": ("DELETE FROM hub.audit_checkpoint WHERE number = 2", 0,
                          Fault.TRUNCATED),
}  # fmt: skip


async def test_whatever_is_done_to_the_tables_is_found(
    database: Database, file: CheckpointFile
) -> None:
    await sealed_log(database, file)
    for name, (sql, sequence, fault) in TAMPERINGS.items():
        async with database.connection() as connection:
            transaction = connection.transaction(isolation="repeatable_read")
            await transaction.start()
            assert await findings(connection) == [], f"a false alarm before '{name}'"
            await connection.execute(sql)
            found = await findings(connection)
            await transaction.rollback()
        assert found, f"'{name}' was not found"
        assert (found[0].fault, found[0].sequence) == (fault, sequence), (name, found[:3])
    assert {n.removeprefix("change ") for n in TAMPERINGS} >= set(COLUMNS)


async def test_what_nobody_has_sealed_yet_is_not_taken_for_inserted(
    database: Database, file: CheckpointFile
) -> None:
    """The keeper's node was cut off an hour ago, and nobody has sealed since; that is not an
    insertion."""
    await sealed_log(database, file)
    async with database.connection() as connection:
        await connection.execute("DELETE FROM hub.audit_checkpoint")
        chain = await connection.fetchrow(
            "SELECT day, last_sequence, last_hash, now() FROM hub.audit_chain"
        )
        assert chain is not None
        day, sequence, digest, now = chain
        last = KEY.sign(None, now - dt.timedelta(hours=1), day, sequence, digest)
        await insert_checkpoint(connection, last)
        await insert_entries(connection, [entry(i) for i in range(100, 103)])
        late = "UPDATE hub.audit_entry SET entry_time = now() - $1::interval WHERE request_id = $2"
        for i in range(100, 103):
            await connection.execute(late, dt.timedelta(minutes=50), f"request-{i}")
        report = await verify_database(connection, [KEY.public], patience=None)
        assert report.intact and report.unsealed == 3
        assert report.waiting is not None and report.waiting >= 50 * 60
        assert "does a keeper run?" in summarise_report(report, Evidence([KEY.public], []))
        assert [f.fault for f in await findings(connection, patience=120.0)] == [Fault.STALE]
        # An entry that its last pass must have seen is different.
        await connection.execute(late, dt.timedelta(minutes=70), "request-101")
        found = await findings(connection, patience=None)
        assert [f.fault for f in found] == [Fault.INSERTED]


async def test_a_clock_that_was_set_back_stops_no_checkpoint_and_cries_no_tampering(
    database: Database, file: CheckpointFile
) -> None:
    """As after a failover to a server whose clock is ten hours behind."""
    sealer = await sealed_log(database, file)
    async with database.connection() as connection:
        last = (await read_checkpoints(connection))[-1]
        ahead = last.time + dt.timedelta(hours=10)
        before = KEY.sign(last, ahead, last.day, last.sequence, last.hash)
        await insert_checkpoint(connection, before)
        await sealer.seal()  # its interval is an hour, and the last checkpoint is in the future
        signed = (await read_checkpoints(connection))[-1]
        assert signed.number == before.number + 1 and signed.time < before.time
        await sealer.seal()
        assert (await read_checkpoints(connection))[-1] == signed  # it signs once, not in each pass
        await insert_entries(connection, [entry(100)])
        report = await verify_database(connection, [KEY.public], patience=120.0)
        assert report.intact and report.unsealed == 1, report.findings
        # Negative control: at the latest time the entry had to be sealed, and the file is current.
        found = await findings(connection, patience=0.0)
        assert [f.fault for f in found] == [Fault.STALE]


async def test_a_cut_end_is_found_by_the_file_or_by_the_clock(
    database: Database, file: CheckpointFile
) -> None:
    await sealed_log(database, file)
    cut = TAMPERINGS["truncate"][0] + ";DELETE FROM hub.audit_checkpoint WHERE sequence > 20;"
    async with database.connection() as connection:
        await connection.execute(cut + "UPDATE hub.audit_chain SET checked_sequence = 20")
        assert await findings(connection) == [], "within the patience nothing can tell"
        found = await findings(connection, file.read())
        assert (found[0].fault, found[0].sequence) == (Fault.TRUNCATED, 21)
        assert found[1].checkpoint == 3
        found = await findings(connection, patience=0.0)
        assert [f.fault for f in found] == [Fault.STALE]


async def test_a_log_that_is_rebuilt_with_another_key_is_found(
    database: Database, file: CheckpointFile
) -> None:
    """A writer of the database rebuilds the whole audit with the sealer's own code."""
    await sealed_log(database, file)
    async with database.connection() as connection:
        await connection.execute(
            f"UPDATE hub.audit_entry SET consumer_id = 'nobody' WHERE {AT};"
            "DELETE FROM hub.audit_seal; DELETE FROM hub.audit_chain;"
            "DELETE FROM hub.audit_checkpoint; UPDATE hub.audit_head SET snapshot = '1:1:'"
        )
        with folder() as path:
            forger = Sealer(database, CheckpointKey(b"f" * 32), CheckpointFile(path / "c"))
            assert await forger.seal(checkpoint=True) == ENTRIES
        found = await findings(connection)
        assert (found[0].fault, found[0].checkpoint) == (Fault.WRONG_KEY, 1)
        forged = await read_checkpoints(connection)
        trusting = await verify_database(connection, [forged[0].public_key])
        assert trusting.intact, "the control: all but the key is in order"
        against_file = await verify_database(connection, [forged[0].public_key], file.read())
        assert not against_file.intact


#: The request ids of all sealed entries.
SEALED = """
SELECT e.request_id
FROM (SELECT day, unnest(entry_ids) AS entry_id FROM hub.audit_seal) AS s
JOIN hub.audit_entry AS e USING (day, entry_id)
"""
#: The number of entries that are sealed after one with a higher id.
SEALED_LATE = """
SELECT count(*)
FROM (
    SELECT i, max(i) OVER (ORDER BY s.first_sequence, o) AS top
    FROM hub.audit_seal AS s, unnest(s.entry_ids) WITH ORDINALITY AS u (i, o)
) AS x
WHERE i < top
"""


async def cancel_running(*tasks: asyncio.Task[None]) -> None:
    """End tasks that must still be running; a task that has failed raises its error."""
    for task in tasks:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_a_file_that_cannot_be_written_is_logged_once_in_a_while(
    database: Database, tmp_path: Path
) -> None:
    """Not in every pass, of which there are four a second."""
    sealer = Sealer(database, KEY, CheckpointFile(tmp_path), interval=0.0)
    with structlog.testing.capture_logs() as logs:
        for number in range(5):
            async with database.transaction() as connection:
                await insert_entries(connection, [Entry(f"e{number}", "/m")])
            await sealer.seal(checkpoint=True)
    assert [e["event"] for e in logs].count("checkpoints_not_filed") == 1


async def test_entries_of_long_and_concurrent_transactions_are_sealed_once(
    database: Database, file: CheckpointFile, store_url: str
) -> None:
    """Writers with long transactions and rollbacks, while the sealer runs and others verify."""
    print(f"seed {SEED}")
    chance = random.Random(SEED)
    sealer = Sealer(database, KEY, file, interval=0.2)
    written: list[str] = []
    gate = asyncio.Event()

    async def writer(name: int) -> None:
        for turn in range(25):
            names = [f"w{name}-{turn}-{i}" for i in range(chance.randint(1, 4))]
            keep = chance.random() < 0.9
            async with database.connection() as connection:
                transaction = connection.transaction()
                await transaction.start()
                await insert_entries(connection, [Entry(n, "/m") for n in names])
                if name == 0 and turn == 0:
                    await gate.wait()  # all others come and go meanwhile
                elif chance.random() < 0.3:
                    await connection.execute("SELECT pg_sleep(0.01)")
                await (transaction.commit() if keep else transaction.rollback())
            written.extend(names if keep else ())

    async def seal() -> None:
        while True:
            await sealer.seal()

    async def verify() -> None:
        async with opened(store_url) as own:
            while True:
                outside = file.read() if file.path.exists() else []
                async with own.snapshot() as connection:
                    assert await findings(connection, outside, patience=None) == []

    await sealer.seal(checkpoint=True)  # without a checkpoint there is nothing to verify against
    sealing, verifying = asyncio.create_task(seal()), asyncio.create_task(verify())
    slow = asyncio.create_task(writer(0))
    await asyncio.gather(*(writer(i) for i in range(1, 6)))
    gate.set()
    await slow
    await cancel_running(sealing, verifying)
    await sealer.seal(checkpoint=True)
    async with database.connection() as connection:
        sealed = await connection.fetch(SEALED)
        assert sorted(row[0] for row in sealed) == sorted(written)
        assert await findings(connection, file.read()) == []
        naive = await connection.fetchval(SEALED_LATE)
    assert naive, "the control: a sealer that goes by ids alone would have missed some"


async def test_a_database_that_was_restored_elsewhere_goes_on(
    database: Database, file: CheckpointFile
) -> None:
    """In the new server transaction ids start again below those that the sealer has seen, and below
    those of sealed entries; some entries were not sealed yet."""
    sealer = await sealed_log(database, file)
    foreign = (
        "INSERT INTO hub.audit_entry (txid, request_id, policy_revision, method, outcome)"
        " SELECT '900000000', 'foreign', 1, '/m', 'OK' FROM generate_series(1, $1)"
    )
    async with database.connection() as connection:
        await connection.execute(foreign, 50)
        assert await sealer.seal(checkpoint=True) == 50
        await connection.execute(foreign, 5)
        await connection.execute(
            "UPDATE hub.audit_head SET cluster = 'elsewhere', snapshot = '900000001:900000001:'"
        )
        await insert_entries(connection, [entry(100)])
    assert await sealer.seal(checkpoint=True) == 6
    assert await sealer.seal(checkpoint=True) == 0
    async with database.connection() as connection:
        await insert_entries(connection, [entry(200 + i) for i in range(3)])
    assert await sealer.seal(checkpoint=True) == 3
    assert await sealer.seal(checkpoint=True) == 0
    async with database.connection() as connection:
        assert await findings(connection, file.read()) == []
        again = await connection.fetchval(
            "SELECT count(*) FROM hub.audit_entry WHERE txid >="
            " (SELECT pg_snapshot_xmax(snapshot) FROM hub.audit_head)"
        )
    assert again == 55, "the control: by transaction ids alone they would be sealed again and again"


async def go_back(database: Database, number: int) -> None:
    """Return the audit to its state at a checkpoint, of one day."""
    async with database.transaction() as connection:
        await connection.execute(
            "DELETE FROM hub.audit_entry AS e USING hub.audit_seal AS s, hub.audit_checkpoint AS c"
            " WHERE c.number = $1 AND s.first_sequence > c.sequence"
            " AND e.entry_id = ANY (s.entry_ids)",
            number,
        )
        await connection.execute(
            "DELETE FROM hub.audit_seal AS s USING hub.audit_checkpoint AS c"
            " WHERE c.number = $1 AND s.first_sequence > c.sequence",
            number,
        )
        await connection.execute("DELETE FROM hub.audit_checkpoint WHERE number > $1", number)
        await connection.execute(
            "UPDATE hub.audit_chain AS a SET last_sequence = c.sequence, last_hash = c.hash,"
            " checked_sequence = c.sequence FROM hub.audit_checkpoint AS c WHERE c.number = $1",
            number,
        )


@pytest.mark.parametrize("signed", [0, 1, 3])
async def test_a_restore_that_is_declared_closes_the_gap(
    database: Database, file: CheckpointFile, signed: int
) -> None:
    """``signed`` checkpoints are made before the declaration; the file has three, the database
    keeps one."""
    await sealed_log(database, file)
    await go_back(database, 1)
    sealer = Sealer(database, KEY, file, interval=3600)
    for i in range(signed):
        async with database.connection() as connection:
            await insert_entries(connection, [entry(300 + i)])
        await sealer.seal(checkpoint=True)
    async with database.connection() as connection:
        faults = {f.fault for f in await findings(connection, file.read())}
        assert faults and faults <= {Fault.TRUNCATED, Fault.REBUILT}, "the control: it is a gap"
    made = await sealer.declare_restore(file)
    assert made is not None and made.sequence == 1
    assert await sealer.declare_restore(file) is None, "there is no gap any more"
    async with database.connection() as connection:
        await insert_entries(connection, [entry(400)])
        await sealer.seal(checkpoint=True)
        report = await verify_database(connection, [KEY.public], file.read())
        assert report.findings == []
        (told,) = report.restores
        assert "undone are checkpoints 2 to 3 of the file, and 20 entries" in told
        assert file.read()[-1] == (await read_checkpoints(connection))[-1]
        # It covers nothing else: neither changes before it, nor a later gap.
        await go_back(database, made.number)
        assert {f.fault for f in await findings(connection, file.read())} == {Fault.TRUNCATED}
        await connection.execute(f"UPDATE hub.audit_entry SET outcome = 'x' WHERE {EARLY}")
        assert (await findings(connection, file.read()))[0].fault is Fault.CHANGED


EARLY = "entry_id = (SELECT entry_ids[5] FROM hub.audit_seal ORDER BY first_sequence LIMIT 1)"


async def test_each_day_has_a_chain_that_hangs_from_the_one_before(
    database: Database, file: CheckpointFile
) -> None:
    sealer = await sealed_log(database, file)
    async with database.connection() as connection:
        await connection.execute(
            "INSERT INTO hub.audit_entry (day, request_id, policy_revision, method, outcome)"
            " SELECT (now() AT TIME ZONE 'UTC')::date + 1, 'tomorrow', 1, '/m', 'OK'"
        )
        await insert_entries(connection, [entry(101)])  # late, for the day before
        await sealer.seal(checkpoint=True)
        chains = await connection.fetch(
            "SELECT anchor, last_sequence FROM hub.audit_chain ORDER BY day"
        )
        assert [tuple(c) for c in chains] == [(0, ENTRIES + 1), (4, 1)]
        assert await findings(connection, file.read()) == []
        await connection.execute("UPDATE hub.audit_chain SET anchor = 3 WHERE anchor = 4")
        found = await findings(connection)
        assert (found[0].fault, found[0].sequence) == (Fault.CHANGED, 1)


async def test_the_content_of_an_entry_is_what_python_makes_of_its_values(
    database: Database,
) -> None:
    async with database.connection() as connection:
        await insert_entries(connection, [entry(1), Entry("bare", "/m")])
        rows = await connection.fetch(f"SELECT {CONTENT}, {VALUES} FROM hub.audit_entry AS e")
        for content, *values in rows:
            assert content_of(dict(zip(COLUMNS, values, strict=True))) == content
        columns = await connection.fetch(
            "SELECT attname FROM pg_attribute WHERE attrelid = 'hub.audit_entry'::regclass"
            " AND attnum > 0 AND NOT attisdropped ORDER BY attnum"
        )
    assert [row[0] for row in columns] == list(COLUMNS), "every column is in the chain"


async def test_the_file_is_completed_and_never_contradicts(
    database: Database, file: CheckpointFile
) -> None:
    await sealed_log(database, file)
    lines = file.path.read_bytes().splitlines(keepends=True)
    assert len(lines) == 3
    # The host died between the commit and the file, in the middle of a line.
    file.path.write_bytes(b"".join(lines[:2]) + lines[2][:40])
    again = Sealer(database, KEY, file, interval=3600)
    await again.seal()
    assert [c.number for c in file.read()] == [1, 2, 3]
    # Somebody moved the file away: later checkpoints go to a new one.
    os.rename(file.path, file.path.with_suffix(".1"))
    await again.seal(checkpoint=True)
    assert [c.number for c in file.read()] == [4]
    # A database that lost its checkpoints does not continue the file.
    async with database.connection() as connection:
        await connection.execute("DELETE FROM hub.audit_checkpoint WHERE number > 2")
    await Sealer(database, KEY, file, interval=3600).seal(checkpoint=True)
    assert [c.number for c in file.read()] == [4]


async def test_no_entry_is_written_before_what_it_shows(database: Database) -> None:
    class Fake:
        digest, content = digest_of("{}"), "{}"

    journal = Journal(database)
    shown: Any = Fake()
    await journal.record(entry(1, shown=journal.introduce(shown)))
    await journal.close()
    async with database.connection() as connection:
        stored = "SELECT content FROM hub.audit_shown WHERE digest = $1"
        assert await connection.fetchval(stored, shown.digest) == "{}"


async def test_an_idle_audit_is_signed_too(database: Database, file: CheckpointFile) -> None:
    sealer = Sealer(database, KEY, file, interval=0.0)
    for _ in range(3):
        await sealer.seal()
    times = [c.time for c in file.read()]
    assert len(times) == 3 and times == sorted(times)
    async with database.connection() as connection:
        assert await findings(connection) == []
    assert dt.datetime.now(dt.UTC) - times[-1] < dt.timedelta(seconds=60)


async def test_every_node_files_every_checkpoint_whichever_of_them_signs(
    database: Database, file: CheckpointFile, tmp_path: Path
) -> None:
    other = CheckpointFile(tmp_path / "other")
    witnesses = [CheckpointWitness(database, f) for f in (file, other)]
    sealer = Sealer(database, KEY, None, interval=3600)

    async def sign(number: int) -> None:
        async with database.connection() as connection:
            await insert_entries(connection, [entry(number)])
        await sealer.seal(checkpoint=True)
        for witness in witnesses:
            await witness.look()

    for i in range(3):
        await sign(i)
    assert [c.number for c in file.read()] == [1, 2, 3] and other.read() == file.read()
    # So the file of either node shows a gap; a file with only the node's own signatures would not.
    await go_back(database, 1)
    async with database.connection() as connection:
        for filed in (file.read(), other.read()):
            faults = {f.fault for f in await findings(connection, filed)}
            assert faults and faults <= {Fault.TRUNCATED, Fault.REBUILT}
        assert await findings(connection, file.read()[:1]) == [], "the control"
    # One node declares it; the files of both continue.
    assert await sealer.declare_restore(file) is not None
    for i in range(3, 5):
        await sign(i)
    assert other.read() == file.read() and [c.number for c in file.read()][-3:] == [4, 5, 6]
    async with database.connection() as connection:
        assert await findings(connection, other.read()) == []


async def test_two_sealers_do_not_seal_the_same(database: Database, file: CheckpointFile) -> None:
    """If two keepers ever run, one of them gets an error, and no entry is in the chain twice."""
    async with database.connection() as connection:
        await insert_entries(connection, [entry(i) for i in range(50)])
    with folder() as path:
        two = Sealer(database, KEY, CheckpointFile(path / "c"), interval=3600)
        one = Sealer(database, KEY, file, interval=3600)
        results = await asyncio.gather(one.seal(), two.seal(), return_exceptions=True)
    sealed = [r for r in results if isinstance(r, int)]
    assert sum(sealed) == 50
    assert all(isinstance(r, int | Conflict) for r in results), results
    async with database.connection() as connection:
        assert await findings(connection, patience=None) == []
