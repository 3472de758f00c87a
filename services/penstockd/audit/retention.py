"""Retention of the audit: days that are over are archived to files, and then dropped.

The archive is written, checked as an auditor would check it, and on disk before anything is
dropped. One transaction then counts the day's entries again, adds the signed checkpoint that states
how the dropped chain ends (PRUNE), lists the file, and drops the day. A run that is killed before
that transaction leaves a file, which the next run replaces with the same content; after it, nothing
is left to do.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import structlog

from penstockd.audit.archive import (
    DayChain,
    finish_archive,
    open_lines,
    prepare_folder,
    remove_unfinished,
    write_archive,
)
from penstockd.audit.checkpoint import Checkpoint, RingSigners
from penstockd.audit.copy import CopyBroken, verify_copy
from penstockd.audit.stored_archives import StoredArchive, insert_archive
from penstockd.audit.stored_checkpoints import insert_checkpoint, read_checkpoint, read_handovers
from penstockd.audit.verify import Fault
from penstockd.errors import Conflict, DataLocked
from penstockd.metering.fold import is_folded
from penstockd.store.database import Connection, Database
from penstockd.store.fences import Transactions

#: Seconds between two searches for days that are old enough.
INTERVAL = 600.0
#: Seconds until the next try after a failure that may pass by itself.
RETRY = 20.0
#: Seconds of trying to drop a day, after which the next pass archives it again.
PATIENCE = 600.0
#: Seconds for which days that are not sealed or not counted yet, and locks of others, are no
#: failure. The first count of a large audit takes long.
UNSEALED_SECONDS, UNCOUNTED_SECONDS, LOCKED_SECONDS = 120.0, 3600.0, 3600.0

#: The oldest day with a chain before a given day, and the checkpoint that signs the chain's end.
#: _EXTENT: the number of the day's entries, and the bytes of their tables.
_OLDEST = """
SELECT c.day, c.anchor, c.last_sequence, c.last_hash, (
    SELECT min(s.number) FROM hub.audit_checkpoint AS s WHERE s.kind = 'SEAL' AND s.day = c.day
    AND s.sequence = c.last_sequence AND s.hash = c.last_hash AND s.number > c.anchor)
FROM hub.audit_chain AS c WHERE c.day < $1 ORDER BY c.day LIMIT 1
"""
_EXTENT = """
SELECT count(*), (
    SELECT coalesce(sum(pg_total_relation_size(t.tableoid)), 0)::bigint
    FROM (SELECT DISTINCT tableoid FROM hub.audit_entry WHERE day = $1) AS t)
FROM hub.audit_entry WHERE day = $1
"""

_log = structlog.get_logger(__name__)


class ArchiveRefused(Exception):
    """A day that cannot be archived as it is; the message states why."""


class NotSealedYet(ArchiveRefused):
    """A day whose chain does not end with a signed entry, or lacks entries. After a long stop,
    the sealer may come to it only after the first run of the retention."""


class NotCountedYet(ArchiveRefused):
    """A day with entries that are not counted as usage: they must be there until they are."""


@dataclass(frozen=True, slots=True)
class ArchivePlace:
    """Where a node puts archives."""

    folder: Path
    node_id: str
    host: str


class AuditRetention:
    """Archives and drops days that ended more than ``days`` days ago; with 0, none."""

    def __init__(
        self, database: Database, signers: RingSigners, place: ArchivePlace, days: int
    ) -> None:
        self._database, self._signers, self._place, self._days = database, signers, place, days
        self._failure: Exception | None = None
        self._failed = 0.0
        #: When what may pass by itself was first met, since the last run that succeeded.
        self._met: dict[type[Exception], float] = {}

    async def run(self, fenced: Transactions) -> None:
        """Look every INTERVAL until cancelled. If the last run failed in a way that time alone
        does not cure, raise that failure again without new work until INTERVAL has passed.

        Raises ArchiveRefused, OSError, Conflict and DatabaseUnavailable, and DataLocked after
        LOCKED_SECONDS.
        """
        if self._failure is not None and time.monotonic() - self._failed < INTERVAL:
            raise self._failure.with_traceback(None)
        while True:
            pause = INTERVAL
            try:
                if self._days:
                    await self.archive_old(fenced)
                self._failure = None
                self._met.clear()
            except (ArchiveRefused, CopyBroken, DataLocked, OSError) as exc:
                if not self._may_pass(exc):
                    self._failure, self._failed = exc, time.monotonic()
                    raise
                _log.info("audit_archive_postponed", retry_seconds=RETRY, reason=str(exc))
                pause = RETRY
            await asyncio.sleep(pause)

    def _may_pass(self, failure: Exception) -> bool:
        """Whether a failure may pass by itself and has not lasted long."""
        kinds = {
            NotSealedYet: UNSEALED_SECONDS,
            NotCountedYet: UNCOUNTED_SECONDS,
            DataLocked: LOCKED_SECONDS,
        }
        patience = kinds.get(type(failure))
        now = time.monotonic()
        return patience is not None and now - self._met.setdefault(type(failure), now) < patience

    async def archive_old(self, fenced: Transactions) -> list[StoredArchive]:
        """Archive and drop all days that are old enough, the oldest first; returns the archives.

        Raises ArchiveRefused, OSError, Conflict, DataLocked and DatabaseUnavailable. The days
        that come before the failing one are archived.
        """
        async with fenced.transaction() as connection:
            today = await connection.fetchval("SELECT (now() AT TIME ZONE 'UTC')::date")
            before = today - dt.timedelta(days=self._days)
            await connection.execute("SELECT hub.drop_empty_audit_days($1)", before)
        done: list[StoredArchive] = []
        while (chain := await self._oldest(fenced, before)) is not None:
            done.append(await self._archive_day(fenced, chain))
        return done

    async def _oldest(self, fenced: Transactions, before: dt.date) -> DayChain | None:
        async with fenced.transaction() as connection:
            row = await connection.fetchrow(_OLDEST, before)
            counted = row is None or await is_folded(connection, row[0])
        if row is None:
            return None
        if row[4] is None:
            raise NotSealedYet(f"the audit of {row[0]}: no checkpoint signs the end of its chain")
        if not counted:
            raise NotCountedYet(
                f"the audit of {row[0]}: its usage is not counted yet; a running hub counts it"
            )
        return DayChain(*row)

    async def _archive_day(self, fenced: Transactions, chain: DayChain) -> StoredArchive:
        folder = self._place.folder.absolute()
        async with self._database.snapshot() as connection:
            count, size = await connection.fetchrow(_EXTENT, chain.day) or (0, 0)
            if count != chain.entries:
                refused = NotSealedYet if count > chain.entries else ArchiveRefused
                raise refused(
                    f"the audit of {chain.day} has {count:,} entries, and its chain"
                    f" {chain.entries:,}: see penstock audit verify"
                )
            await asyncio.to_thread(prepare_folder, folder, size)
            handovers = await read_handovers(connection)
            fresh = await write_archive(connection, chain, folder)
        try:
            await asyncio.to_thread(_check_archive, fresh, self._signers.public, handovers)
            path, size = await asyncio.to_thread(finish_archive, fresh, chain)
        except BaseException:
            remove_unfinished(fresh)
            raise
        return await self._drop_day(fenced, chain, path, size)

    async def _drop_day(
        self, fenced: Transactions, chain: DayChain, path: Path, size: int
    ) -> StoredArchive:
        end = time.monotonic() + PATIENCE
        while True:
            try:
                async with fenced.transaction() as connection:
                    archive = await self._count_and_drop(connection, chain, path, size)
                break
            except (Conflict, DataLocked) as exc:
                if time.monotonic() > end:
                    raise
                # Conflict: the sealer has signed a checkpoint of the same number. DataLocked:
                # others are reading the audit; they, and all calls behind them, would wait for a
                # lock that is tried often.
                await asyncio.sleep(RETRY if isinstance(exc, DataLocked) else 0)
        _log.info("audit_day_archived", day=str(chain.day), entries=chain.entries, file=str(path))
        return archive

    async def _count_and_drop(
        self, connection: Connection, chain: DayChain, path: Path, size: int
    ) -> StoredArchive:
        try:
            # Counting is slow. The checkpoint comes after it, since the sealer waits from then on.
            await connection.execute("SELECT hub.count_audit_day($1)", chain.day)
            return await self._sign_drop(connection, chain, path, size)
        except asyncpg.ObjectNotInPrerequisiteStateError as exc:
            raise ArchiveRefused(str(exc)) from exc

    async def _sign_drop(
        self, connection: Connection, chain: DayChain, path: Path, size: int
    ) -> StoredArchive:
        last, now = await read_checkpoint(connection), await connection.fetchval("SELECT now()")
        assert last is not None, "one signs the end of the chain"
        signer = self._signers.choose_signer(last)
        pruned = signer.sign_prune(last, now, chain.day, chain.entries, chain.last_hash)
        await insert_checkpoint(connection, pruned)
        place = self._place
        archive = StoredArchive(
            pruned.number, chain.day, chain.entries, chain.last_hash, path.name,
            size, place.node_id, place.host, str(path.parent), now,
        )  # fmt: skip
        await insert_archive(connection, archive)
        await connection.execute("SELECT hub.drop_audit_day($1)", pruned.number)
        return archive


def _check_archive(path: Path, keys: Sequence[bytes], handovers: Sequence[Checkpoint]) -> None:
    """Raise ArchiveRefused or CopyBroken unless an auditor would find the file intact."""
    with open_lines(path) as lines:
        report = verify_copy(lines, keys, witnesses=handovers)
    # The auditor reports entries that the database did not keep, with or without the archive.
    wrong = [str(found) for found in report.findings if found.fault is not Fault.SUPPRESSED]
    if wrong:
        raise ArchiveRefused(
            f"the audit is not archived, because it differs from what was sealed: {wrong[0]}"
            " (see penstock audit verify)"
        )
