"""Old days of the audit move to files: nothing is lost, counted twice, or changed unnoticed."""

from __future__ import annotations

import asyncio
import datetime as dt
import gzip
import hashlib
import json
import re
import shutil
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import asyncpg
import pytest

from databases import own_database
from penstockd.audit import retention
from penstockd.audit.archive import ArchiveFolders, list_archives, open_lines
from penstockd.audit.checkpoint import CheckpointFile, RingSigners
from penstockd.audit.copy import Written, verify_copy, write_copy
from penstockd.audit.entry import Entry, insert_entries
from penstockd.audit.proof import verify_database
from penstockd.audit.retention import (
    ArchivePlace,
    ArchiveRefused,
    AuditRetention,
    NotCountedYet,
    NotSealedYet,
)
from penstockd.audit.sealer import Sealer
from penstockd.audit.shown import digest_of
from penstockd.audit.stored_archives import StoredArchive, find_archived, read_archives
from penstockd.audit.verify import Fault, VerificationReport
from penstockd.auditor import collect_evidence
from penstockd.config import Settings
from penstockd.errors import DataLocked
from penstockd.installation import open_ring
from penstockd.metering.fold import UsageFold
from penstockd.node.postgres import EmbeddedPostgres
from penstockd.store.database import Connection, Database, open_database
from penstockd.store.fences import LeaseOver, Transactions

RULE = '{"dataset":"customers","fields":{},"roles":[],"row_filters":[]}'
KEYS = b"P" + bytes(range(200))
#: The number of entries of each old day, and the ages of the old days in days.
ENTRIES, OLD = 12, (4, 3, 2)


@dataclass
class World:
    """A database with some days of audit, and the files beside it."""

    database: Database
    folder: Path
    #: The day on which the fixture was made: a test may run across midnight.
    today: dt.date

    def __post_init__(self) -> None:
        self.signers = RingSigners(open_ring(Settings(data_dir=self.folder)))
        self.file = CheckpointFile(self.folder / "checkpoints.jsonl")
        self.archives = self.folder / "archive"
        self.sealer = Sealer(self.database, self.signers, self.file, interval=3600)
        place = ArchivePlace(self.archives, "n1", "host1")
        self.retention = AuditRetention(self.database, self.signers, place, 1)

    async def add(self, days_ago: int, count: int = ENTRIES) -> dt.date:
        """Add entries of a day; returns the day."""
        entries = [
            Entry(
                f"r{days_ago}-{i}", "/Get", 3, shown=digest_of(RULE), keys=KEYS if i % 2 else None
            )
            for i in range(count)
        ]
        day = self.today - dt.timedelta(days=days_ago)
        async with self.database.transaction() as connection:
            last = await connection.fetchval(
                "SELECT coalesce(max(entry_id), 0) FROM hub.audit_entry"
            )
            await insert_entries(connection, entries)
            if days_ago:
                await connection.execute(
                    "UPDATE hub.audit_entry SET day = $1,"
                    " entry_time = entry_time - make_interval(days => $2) WHERE entry_id > $3",
                    day, days_ago, last,
                )  # fmt: skip
        return day

    async def count_usage(self) -> None:
        """Count what is sealed as usage: no day is archived before that."""
        fold = UsageFold(self.database)
        while await fold.fold_next():
            pass

    async def archive(self, fenced: Transactions | None = None) -> int:
        """Archive what is old, once it is counted as usage."""
        await self.count_usage()
        return len(await self.retention.archive_old(fenced or self.database))

    async def verify(self, *, files: bool = True) -> VerificationReport:
        outside = self.file.read() if self.file.path.exists() else []
        async with self.database.snapshot() as connection:
            return await verify_database(
                connection, self.signers.public, outside,
                archives=ArchiveFolders([self.archives]) if files else None,
            )  # fmt: skip

    async def faults(self) -> list[Fault]:
        return [found.fault for found in (await self.verify()).findings]

    async def fetch(self, sql: str, *arguments: Any) -> Any:
        async with self.database.connection() as connection:
            return await connection.fetchval(sql, *arguments)

    def dated(self, sql: str) -> str:
        """SQL in which DAY4 is the day four days ago."""
        return re.sub(
            r"DAY(\d)", lambda m: f"date '{self.today - dt.timedelta(days=int(m[1]))}'", sql
        )

    async def total(self) -> int:
        return int(await self.fetch("SELECT count(*) FROM hub.audit_entry"))


@asynccontextmanager
async def opened(url: str, folder: Path) -> AsyncIterator[World]:
    async with open_database(url, size=6) as database:
        today = await database_day(database)
        yield World(database, folder, today)


async def database_day(database: Database) -> dt.date:
    async with database.connection() as connection:
        day: dt.date = await connection.fetchval("SELECT (now() AT TIME ZONE 'UTC')::date")
        return day


@pytest.fixture
async def world(store_url: str, tmp_path: Path) -> AsyncIterator[World]:
    """Three old days, the first in a partition and the others in the default one, and today."""
    async with opened(store_url, tmp_path) as world:
        async with world.database.transaction() as connection:
            await connection.execute("SELECT hub.add_audit_partitions(1)")
            await connection.execute(
                "INSERT INTO hub.audit_shown VALUES ($1, $2)", digest_of(RULE), RULE
            )
            for days_ago in (OLD[0], 9):
                await add_partition(connection, world.today - dt.timedelta(days=days_ago))
        for days_ago in OLD:
            await world.add(days_ago)
            await world.sealer.seal(checkpoint=True)
        await world.add(0, 5)
        await world.sealer.seal(checkpoint=True)
        yield world


async def add_partition(connection: Connection, day: dt.date) -> None:
    await connection.execute(
        f"CREATE TABLE hub.audit_entry_{day:%Y%m%d} PARTITION OF hub.audit_entry"
        f" FOR VALUES FROM ('{day}') TO ('{day + dt.timedelta(days=1)}')"
    )


async def test_old_days_are_dropped_and_verified_from_their_files(world: World) -> None:
    before = await world.total()
    assert (await world.verify()).intact
    assert await world.archive() == len(OLD)
    assert await world.total() == 5
    partitions = "SELECT count(*) FROM pg_class WHERE relname ~ '^audit_entry_2[0-9]{7}$'"
    assert await world.fetch(partitions) == 2, "those of today and tomorrow"
    for table in ("audit_chain", "audit_seal"):
        assert await world.fetch(f"SELECT count(DISTINCT day) FROM hub.{table}") == 1
    files = list_archives(world.archives)
    assert len(files) == len(OLD) and len(list(world.archives.iterdir())) == len(OLD)
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    report = await world.verify()
    assert report.intact, report.findings
    assert report.archived is not None and report.in_store is not None
    assert (report.archived.entries, report.archived.files) == (ENTRIES * len(OLD), len(OLD))
    assert report.entries == before == report.archived.entries + report.in_store.entries
    assert (report.in_store.last - report.archived.first).days == OLD[0]
    # Nothing is left to do, and the audit goes on.
    assert await world.archive() == 0
    await world.add(0, 3)
    assert await world.sealer.seal(checkpoint=True) == 3
    assert (await world.verify()).intact
    assert world.file.last() is not None and (await world.verify(files=False)).intact


async def test_a_file_holds_all_that_was_dropped_and_can_be_verified_alone(world: World) -> None:
    async with world.database.connection() as connection:
        rows = await connection.fetch(
            "SELECT request_id, keys FROM hub.audit_entry WHERE request_id !~ '^r0-'"
        )
    await world.archive()
    held = {}
    for path in list_archives(world.archives):
        with open_lines(path) as lines:
            assert verify_copy(lines, world.signers.public).intact
        for line in read_lines(path):
            if entry := line.get("entry"):
                keys = line.get("keys")
                held[entry["request_id"]] = keys
                digest = None if keys is None else hashlib.sha256(KEYS).hexdigest()
                assert entry["keys"] == digest
    assert held.keys() == {row["request_id"] for row in rows}
    assert sum(keys is not None for keys in held.values()) == ENTRIES * len(OLD) // 2
    listed = {a.file for a in await read_rows(world)}
    assert listed == {path.name for path in list_archives(world.archives)}


async def read_rows(world: World) -> list[Any]:
    async with world.database.connection() as connection:
        return list(await read_archives(connection))


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


def write_lines(path: Path, lines: list[dict[str, Any]]) -> None:
    path.write_bytes(gzip.compress(b"".join(json.dumps(x).encode() + b"\n" for x in lines)))


def edit(change: Callable[[list[dict[str, Any]]], Any]) -> Callable[[list[Path]], None]:
    """A way of tampering with the lines of the second file."""

    def apply(files: list[Path]) -> None:
        lines = read_lines(files[1])
        made = change(lines)
        write_lines(files[1], lines if made is None else made)

    return apply


def entry_at(lines: list[dict[str, Any]], place: int) -> int:
    return next(i for i, line in enumerate(lines) if "entry" in line) + place


def swap_files(files: list[Path]) -> None:
    one, other = files[0].read_bytes(), files[1].read_bytes()
    files[0].write_bytes(other)
    files[1].write_bytes(one)


def swap_lines(lines: list[dict[str, Any]]) -> None:
    at = entry_at(lines, 3)
    lines[at], lines[at + 1] = lines[at + 1], lines[at]


def cut_chain(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Remove the last entry, and adjust every count."""
    del lines[-2]
    for line in lines:
        if "chain" in line:
            line["chain"]["entries"] -= 1
    return lines


def without(kind: str) -> Callable[[list[dict[str, Any]]], list[dict[str, Any]]]:
    def cut(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
        first = next(i for i, line in enumerate(lines) if kind in line)
        return lines[:first] + lines[first + 1 :]

    return cut


def set_entry(**values: Any) -> Callable[[list[dict[str, Any]]], None]:
    return lambda lines: lines[entry_at(lines, 3)]["entry"].update(values)


TAMPERINGS: dict[str, tuple[Callable[[list[Path]], Any], Fault]] = {
    "lose a file": (lambda files: files[1].unlink(), Fault.ARCHIVE),
    "cut a file": (lambda files: files[1].write_bytes(files[1].read_bytes()[:-40]), Fault.ARCHIVE),
    "damage a file": (lambda files: files[1].write_bytes(b"x"), Fault.ARCHIVE),
    "empty a file": (lambda files: files[1].write_bytes(b""), Fault.ARCHIVE),
    "swap two files": (swap_files, Fault.ARCHIVE),
    "change an entry": (edit(set_entry(outcome="NOT_FOUND")), Fault.CHANGED),
    "change a hash": (edit(lambda x: x[entry_at(x, 3)].update(hash="00" * 32)), Fault.CHANGED),
    "lose an entry": (edit(lambda x: x[: entry_at(x, 3)] + x[entry_at(x, 4) :]), Fault.DELETED),
    "repeat an entry": (edit(lambda x: x.insert(entry_at(x, 3), x[entry_at(x, 3)])), Fault.DELETED),
    "reorder entries": (edit(swap_lines), Fault.DELETED),
    "lose the last entry": (edit(cut_chain), Fault.TRUNCATED),
    "lose the end": (edit(lambda x: x[:-1]), Fault.ARCHIVE),
    "add after the end": (edit(lambda x: [*x, x[-1]]), Fault.ARCHIVE),
    "change the keys of a reply": (
        edit(lambda x: x[entry_at(x, 3)].update(keys="UDE=")), Fault.CHANGED
    ),
    "change a rule": (edit(lambda x: next(
        line["rule"] for line in x if "rule" in line).update(content=RULE + " ")),
        Fault.RULE_CHANGED),
    "lose a rule": (edit(without("rule")), Fault.RULE_CHANGED),
    "lose a checkpoint": (edit(without("checkpoint")), Fault.CHECKPOINT),
    "lose the head": (edit(without("chain")), Fault.ARCHIVE),
}  # fmt: skip


async def test_whatever_is_done_to_the_files_is_found(world: World, tmp_path: Path) -> None:
    await world.archive()
    sound = tmp_path / "sound"
    shutil.copytree(world.archives, sound)
    for name, (tamper, fault) in TAMPERINGS.items():
        assert await world.faults() == [], f"a false alarm before '{name}'"
        tamper(list_archives(world.archives))
        found = await world.verify()
        assert fault in [f.fault for f in found.findings], (name, found.findings[:3])
        day = list_archives(sound)[1].name[6:16]
        assert any(str(f.day) == day for f in found.findings), (name, found.findings[:3])
        shutil.rmtree(world.archives)
        shutil.copytree(sound, world.archives)
    # Signed checkpoints say what was dropped; verification also notices that one is missing.
    async with world.database.transaction() as connection:
        await connection.execute("DELETE FROM hub.audit_checkpoint WHERE kind = 'PRUNE'")
    assert Fault.TRUNCATED in await world.faults()


async def test_rows_that_are_changed_later_are_found_beside_archives(world: World) -> None:
    await world.archive()
    change = "UPDATE hub.audit_entry SET outcome = 'x' WHERE request_id = 'r0-2'"
    async with world.database.transaction() as connection:
        await connection.execute(change)
    assert await world.faults() == [Fault.CHANGED]


async def test_a_day_that_was_tampered_with_is_not_dropped(world: World) -> None:
    await world.count_usage()
    for change in (
        "UPDATE hub.audit_entry SET outcome = 'x' WHERE request_id = 'r4-2'",
        "DELETE FROM hub.audit_entry WHERE request_id = 'r4-2'",
        "INSERT INTO hub.audit_entry (day, request_id, policy_revision, method, outcome)"
        " VALUES (DAY4, 'x', 1, '/Get', 'OK')",
        "UPDATE hub.audit_shown SET content = '{}'",
        "UPDATE hub.audit_checkpoint SET signature = '' WHERE number = 1",
        "UPDATE hub.audit_chain SET last_sequence = 11 WHERE day = DAY4",
    ):
        async with world.database.connection() as connection:
            transaction = connection.transaction()
            await transaction.start()
            await connection.execute(world.dated(change))
            one = OneConnection(connection)
            place = ArchivePlace(world.archives, "n", "h")
            retention = AuditRetention(cast(Database, one), world.signers, place, 1)
            with pytest.raises(ArchiveRefused):
                await retention.archive_old(one)
            await transaction.rollback()
    assert await world.total() == ENTRIES * len(OLD) + 5
    assert list(world.archives.iterdir()) == []
    assert await world.archive() == len(OLD), "the control"


class OneConnection:
    """A database of one connection, whose transactions are parts of an open one."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @asynccontextmanager
    async def transaction(self, **_: Any) -> AsyncIterator[Connection]:
        async with self._connection.transaction():
            yield self._connection

    snapshot = transaction


#: Statements of somebody who may do anything, after which the owner's function refuses to drop.
REFUSED = {
    "no archive": "DELETE FROM hub.audit_archive",
    "not signed": "UPDATE hub.audit_checkpoint SET kind = 'SEAL' WHERE kind = 'PRUNE'",
    "signed otherwise": "UPDATE hub.audit_checkpoint SET hash = 'x' WHERE kind = 'PRUNE'",
    "not sealed": "UPDATE hub.audit_chain SET checked_sequence = 3 WHERE day = DAY4",
    "another chain": "UPDATE hub.audit_archive SET last_hash = 'x'",
    "no signed end": "DELETE FROM hub.audit_checkpoint WHERE kind = 'SEAL'",
    "an entry outside its chain": (
        "INSERT INTO hub.audit_entry (day, request_id, policy_revision, method, outcome)"
        " VALUES (DAY4, 'x', 1, '/Get', 'OK')"
    ),
    "an earlier day": "UPDATE hub.audit_chain SET day = DAY5 WHERE day = DAY0",
    "today": "UPDATE hub.audit_archive SET day = DAY0",
    "not counted": "SELECT",
}
#: Counts the day of the archive with the number 1000.
COUNT = "hub.count_audit_day(day) FROM hub.audit_archive WHERE checkpoint = 1000"


async def test_the_database_refuses_to_drop_what_is_not_archived(world: World) -> None:
    async with world.database.connection() as connection:
        chain = await connection.fetchrow(
            "SELECT day, last_sequence, last_hash FROM hub.audit_chain ORDER BY day LIMIT 1"
        )
        assert chain is not None
        outer = connection.transaction()
        await outer.start()
        await connection.execute(
            "INSERT INTO hub.audit_checkpoint SELECT 1000, now(), 'PRUNE', $1, $2, $3, '', '', ''",
            *chain,
        )
        await connection.execute(
            "INSERT INTO hub.audit_archive VALUES (1000, $1, $2, $3, 'f', 1, 'n', 'h', 'd', now())",
            *chain,
        )
        for name, statement in REFUSED.items():
            inner = connection.transaction()
            await inner.start()
            await connection.execute(world.dated(statement))
            with pytest.raises(asyncpg.ObjectNotInPrerequisiteStateError):
                if name != "not counted":
                    await connection.execute(f"SELECT {COUNT}")
                await connection.execute("SELECT hub.drop_audit_day(1000)")
                pytest.fail(f"dropped although: {name}")
            await inner.rollback()
        await connection.execute(f"SELECT {COUNT}")
        await connection.execute("SELECT hub.drop_audit_day(1000)")  # the control
        await outer.rollback()


class Halting:
    """A database whose transactions halt before they drop a day."""

    def __init__(self, database: Database, before: str) -> None:
        self._database, self._before = database, before
        self.reached, self.go_on = asyncio.Event(), asyncio.Event()

    @asynccontextmanager
    async def transaction(self, **_: Any) -> AsyncIterator[Connection]:
        async with self._database.transaction() as connection:
            yield cast(Connection, HaltingConnection(connection, self))

    async def pass_by(self, sql: str) -> None:
        if self._before in sql:
            self.reached.set()
            await self.go_on.wait()


class HaltingConnection:
    """A connection that tells ``Halting`` of each statement before it is sent."""

    def __init__(self, connection: Connection, halting: Halting) -> None:
        self._connection, self._halting = connection, halting

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    async def execute(self, sql: str, *arguments: Any) -> Any:
        await self._halting.pass_by(sql)
        return await self._connection.execute(sql, *arguments)


async def test_the_sealer_signs_while_a_day_is_counted(world: World) -> None:
    """The day is counted, which may take long, before the next checkpoint is taken."""
    halting = Halting(world.database, "INSERT INTO hub.audit_checkpoint")
    archiving = asyncio.ensure_future(world.archive(halting))
    await asyncio.wait({archiving, asyncio.ensure_future(halting.reached.wait())},
        return_when=asyncio.FIRST_COMPLETED)  # fmt: skip
    counted = await world.fetch(
        "SELECT count(*) FROM pg_locks AS l JOIN pg_class AS c ON c.oid = l.relation"
        " WHERE c.relname ~ '^audit_entry_[0-9]{8}$' AND l.mode = 'ShareLock' AND l.granted"
    )
    assert counted == 1 and not archiving.done()
    await world.add(0, 1)
    newest = "SELECT max(number) FROM hub.audit_checkpoint"
    before = await world.fetch(newest)
    await asyncio.wait_for(world.sealer.seal(checkpoint=True), 60)
    assert await world.fetch(newest) == before + 1
    halting.go_on.set()
    assert await archiving == len(OLD), "the number that the sealer took is tried again"
    assert (await world.verify()).intact


class Dying:
    """A database for a run that is killed at the end of one of its transactions: before the commit,
    or right after it."""

    def __init__(self, database: Database, at: int, *, committed: bool) -> None:
        self._database, self._left, self._committed = database, at, committed

    @asynccontextmanager
    async def transaction(self, **_: Any) -> AsyncIterator[Connection]:
        self._left -= 1
        dies = self._left < 0
        async with self._database.transaction() as connection:
            yield connection
            if dies and not self._committed:
                raise LeaseOver("killed")
        if dies:
            raise LeaseOver("killed")


async def test_a_run_that_is_killed_anywhere_loses_nothing_and_counts_nothing_twice(
    world: World,
) -> None:
    total, killed = await world.total(), 0
    # Each day takes two transactions: to find it, and to drop it.
    for at in range(2 * len(OLD) + 2):
        for committed in (False, True):
            with pytest.raises(LeaseOver):
                await world.archive(Dying(world.database, at % 3, committed=committed))
                await world.archive(Dying(world.database, 0, committed=committed))
            killed += 1
            report = await world.verify()
            assert report.intact, (at, committed, report.findings)
            assert report.entries == total, (at, committed)
    await world.archive()
    report = await world.verify()
    assert report.intact and report.entries == total
    assert len(list(world.archives.iterdir())) == len(OLD)
    assert killed == 2 * (2 * len(OLD) + 2)


async def test_entries_that_get_the_date_of_a_dropped_day_form_a_chain_of_their_own(
    world: World,
) -> None:
    """The state after a clock was set back by days."""
    await world.archive()
    await world.add(OLD[1], 4)
    await world.sealer.seal(checkpoint=True)
    report = await world.verify()
    assert report.intact and report.entries == ENTRIES * len(OLD) + 5 + 4
    assert await world.archive() == 1
    assert len(list_archives(world.archives)) == len(OLD) + 1
    assert (await world.verify()).intact
    # Verification reports that each of the two files is missing.
    for path in list_archives(world.archives):
        kept = path.read_bytes()
        path.unlink()
        assert await world.faults() == [Fault.ARCHIVE]
        path.write_bytes(kept)


async def test_two_runs_at_once_drop_each_day_once(world: World) -> None:
    await asyncio.gather(world.archive(), world.archive(), return_exceptions=True)
    while await world.archive():
        pass
    assert await world.fetch("SELECT count(*) FROM hub.audit_archive") == len(OLD)
    assert (await world.verify()).intact


async def test_a_database_that_went_back_before_the_drop_keeps_its_days(
    server: EmbeddedPostgres, tmp_path: Path, store_url: str, world: World
) -> None:
    """A backup is restored that is older than the archives."""
    name = urlsplit(store_url).path.strip("/")
    await world.database.close()
    async with own_database(server, name) as copy:
        async with opened(store_url, tmp_path) as later:
            await later.archive()
            await later.sealer.seal(checkpoint=True)
        async with opened(copy, tmp_path) as restored:
            await restored.fetch("SELECT hub.rebase_audit()")
            assert Fault.TRUNCATED in await restored.faults(), "nothing is declared yet"
            assert await restored.sealer.declare_restore(restored.file) is not None
            report = await restored.verify()
            assert report.intact and report.archived is None, report.findings
            assert report.entries == ENTRIES * len(OLD) + 5
            # The days are dropped again, into the same files.
            before = {p.name: p.read_bytes() for p in list_archives(restored.archives)}
            assert await restored.archive() == len(OLD)
            assert {p.name: p.read_bytes() for p in list_archives(restored.archives)} == before
            await restored.sealer.seal(checkpoint=True)
            assert (await restored.verify()).intact
    await world.database.open()


async def test_questions_about_archived_days_are_told_where_these_are(world: World) -> None:
    await world.archive()
    async with world.database.snapshot() as connection:
        today = world.today
        first, last = (world.today - dt.timedelta(days=n) for n in (OLD[0], OLD[-1]))
        found = await find_archived(connection, dt.date.min, dt.date.max)
        assert found is not None and (found.first, found.last) == (first, last)
        assert found.places == [f"host1:{world.archives}"]
        assert await find_archived(connection, last + dt.timedelta(days=1), today) is None
        copy = [line async for line in write_copy(connection, first, today, Written())]
        report = verify_copy(b"".join(copy).splitlines(keepends=True), world.signers.public)
        assert report.intact and report.archived is not None
        assert (report.archived.first, report.archived.last) == (first, last)


async def test_without_a_setting_nothing_is_archived(world: World) -> None:
    place = ArchivePlace(world.archives, "n1", "host1")
    keeping = AuditRetention(world.database, world.signers, place, 0)
    task = asyncio.ensure_future(keeping.run(world.database))
    done, _ = await asyncio.wait({task}, timeout=0.5)
    task.cancel()
    assert not done and await world.total() == ENTRIES * len(OLD) + 5


class Failing(AuditRetention):
    """A retention whose every run fails."""

    def __init__(self, world: World, failure: Exception) -> None:
        super().__init__(world.database, world.signers, ArchivePlace(world.archives, "n", "h"), 1)
        self.failure, self.runs = failure, 0

    async def archive_old(self, fenced: Transactions) -> list[StoredArchive]:
        self.runs += 1
        raise self.failure


@pytest.mark.parametrize(
    ("failure", "patient"),
    [
        (NotSealedYet("x"), True),
        (NotCountedYet("x"), True),
        (DataLocked("x"), True),
        (ArchiveRefused("x"), False),
    ],
)
async def test_what_may_pass_by_itself_is_a_failure_only_after_a_while(
    world: World, monkeypatch: pytest.MonkeyPatch, failure: Exception, patient: bool
) -> None:
    monkeypatch.setattr(retention, "RETRY", 0.05)
    for name in ("UNSEALED_SECONDS", "UNCOUNTED_SECONDS", "LOCKED_SECONDS"):
        monkeypatch.setattr(retention, name, 0.5)
    keeping = Failing(world, failure)
    for _ in range(2):  # the second time it is raised again without work
        with pytest.raises(type(failure)):
            await asyncio.wait_for(keeping.run(world.database), 30)
        assert (keeping.runs > 1) == patient
    monkeypatch.setattr(retention, "INTERVAL", 0.0)
    runs = keeping.runs
    with pytest.raises(type(failure)):
        await asyncio.wait_for(keeping.run(world.database), 30)
    assert keeping.runs == runs + 1, "it has lasted for long"


async def test_a_day_that_is_not_sealed_yet_is_told_apart(world: World) -> None:
    await world.add(OLD[0], 2)
    with pytest.raises(NotSealedYet):
        await world.archive()
    async with world.database.transaction() as connection:
        await connection.execute(world.dated("DELETE FROM hub.audit_entry WHERE day < DAY0"))
    with pytest.raises(ArchiveRefused) as refused:
        await world.archive()
    assert refused.type is ArchiveRefused, "the control: entries that are gone do not come back"


def test_a_copy_has_the_checkpoints_of_the_installation_as_witnesses(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, secret="s" * 40)
    assert collect_evidence(settings, [], [], copy=True).witnesses == ()
    signer = RingSigners(open_ring(settings)).choose_signer(None)
    now = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
    checkpoint = signer.sign(None, now, now.date(), 1, b"h" * 32)
    CheckpointFile(settings.checkpoint_file).append([checkpoint])
    of_copy = collect_evidence(settings, [], [], copy=True)
    assert (of_copy.outside, of_copy.witnesses) == ([], [checkpoint])
    for found in (
        collect_evidence(settings, [], [], copy=False),
        collect_evidence(settings, [], [settings.checkpoint_file], copy=True),
    ):
        assert (found.outside, found.witnesses) == ([checkpoint], ())
