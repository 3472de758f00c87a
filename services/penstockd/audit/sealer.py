"""Seals committed entries: adds them to the chain of their day; runs in the keeper.

Entries do not become visible in the order of their ids, and those of a long transaction appear
late. So the sealer remembers the snapshot of its last pass and takes what was not visible in it:
the entries of transactions that were open then or began later. None is missed or taken twice, and
an open long transaction causes no repeated searches.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from penstockd.audit.chain import CONTENT, link_entry, start_chain
from penstockd.audit.checkpoint import Checkpoint, CheckpointFile, Signers
from penstockd.audit.stored_checkpoints import (
    insert_checkpoint,
    read_checkpoint,
    read_checkpoints,
)
from penstockd.audit.witness import CheckpointWitness
from penstockd.errors import Conflict
from penstockd.store.database import Connection
from penstockd.store.fences import Transactions

#: How often committed entries are sealed, in seconds.
SEAL_INTERVAL = 0.25
#: Entries that are read at a time, and sealed in one row.
GROUP = 1000
#: The number of new entries beside those of another cluster at which a rebase counts the new ones
#: as old, too.
REBASE_ENTRIES = 100_000

#: Entries that the last pass's snapshot did not see; transaction ids of another cluster are
#: meaningless.
_NEW = "e.entry_id > $3 AND (e.txid >= $1 OR e.txid = ANY ($2::xid8[]))"
#: Entries from another cluster that are in no chain.
_FOREIGN = """
e.entry_id <= $1 AND NOT EXISTS (
    SELECT FROM (SELECT day, unnest(entry_ids) AS entry_id FROM hub.audit_seal) AS s
    WHERE s.day = e.day AND s.entry_id = e.entry_id)
"""
#: Whether the database is in another cluster than at the last pass; or enough new entries have
#: accumulated that finding them is slow, while transaction ids are below some of another cluster.
_MOVED = f"""
SELECT h.cluster <> hub.cluster()
    OR h.foreign_txid >= pg_snapshot_xmax(pg_current_snapshot())
    AND (SELECT max(entry_id) FROM hub.audit_entry) > h.foreign_id + {REBASE_ENTRIES}
FROM hub.audit_head AS h
"""
_ENTRIES = f"SELECT e.day, e.entry_id, {CONTENT} FROM hub.audit_entry AS e WHERE "
_ORDER = " ORDER BY e.day, e.entry_id"
_UNSIGNED_USAGE = """
SELECT day, revision, entries, digest FROM hub.usage_digest WHERE checkpoint IS NULL
ORDER BY day, revision LIMIT 100
"""
_NOTE_SIGNED_USAGE = """
UPDATE hub.usage_digest SET checkpoint = $3 WHERE day = $1 AND revision = $2
"""

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Chain:
    """The state of a day's chain; ``checked`` is the sequence of its last checkpoint."""

    day: dt.date
    anchor: int
    sequence: int
    hash: bytes
    checked: int

    def add(self, rows: Sequence[Any]) -> tuple[list[int], bytes]:
        """Link entries; returns their ids and hashes."""
        hashes = []
        for row in rows:
            self.hash = link_entry(self.hash, row[2])
            hashes.append(self.hash)
        self.sequence += len(rows)
        return [row[1] for row in rows], b"".join(hashes)


class Sealer:
    """Seals, and signs a checkpoint every ``interval`` seconds, even without new entries."""

    def __init__(
        self,
        database: Transactions,
        signers: Signers,
        file: CheckpointFile | None,
        *,
        interval: float = 30.0,
    ) -> None:
        """Each checkpoint goes to ``file`` as it is signed, if there is one."""
        self._database, self._signers = database, signers
        self._witness = CheckpointWitness(database, file) if file is not None else None
        self._interval = interval

    async def run(self) -> None:
        """Seal every SEAL_INTERVAL until cancelled. Raises DatabaseUnavailable."""
        while True:
            try:
                await self.seal()
            except Conflict:
                _log.warning("sealed_by_another")  # the next pass sees its work
            await asyncio.sleep(SEAL_INTERVAL)

    async def seal(self, *, checkpoint: bool = False) -> int:
        """Seal committed entries, and sign a checkpoint if one is due or ``checkpoint`` is set.

        Returns how many entries were sealed. Raises Conflict if another process also seals.
        """
        async with self._database.transaction() as connection:
            if await connection.fetchval(_MOVED):
                _log.info("audit_of_another_cluster")
                await connection.execute("SELECT hub.rebase_audit()")
        async with self._database.transaction(isolation="repeatable_read") as connection:
            work = _Pass(connection, self._signers)
            await work.seal()
            await work.sign_usage()
            await work.sign_if(self._interval, checkpoint)
            await work.save()
        if self._witness is not None:
            await self._witness.look()
        return work.count

    async def declare_restore(self, file: CheckpointFile) -> Checkpoint | None:
        """Sign that the database has gone back in time, if it lacks checkpoints that ``file`` has;
        the signed checkpoint states which (see ``CheckpointKey.sign_restore``).

        Seals all present entries first. Returns the checkpoint, None if nothing is missing. Raises
        Conflict if another process also seals, and OSError.
        """
        await self.seal(checkpoint=True)
        filed = file.read() if file.path.exists() else []
        if not filed:
            return None
        async with self._database.transaction(isolation="repeatable_read") as connection:
            known = {c.number: c for c in await read_checkpoints(connection)}
            if known.get(filed[-1].number) == filed[-1]:
                return None
            common = max((c.number for c in filed if known.get(c.number) == c), default=0)
            last = max(known.values(), key=lambda c: c.number, default=None)
            now = await connection.fetchval("SELECT now()")
            made = self._signers.choose_signer(last).sign_restore(last, filed[-1], common, now)
            await insert_checkpoint(connection, made)
        if self._witness is not None:
            await self._witness.look()
        return made


class _Pass:
    """One pass of the sealer, in one transaction with one snapshot."""

    def __init__(self, connection: Connection, signers: Signers) -> None:
        self._connection, self._signers = connection, signers
        self._chains: dict[dt.date, Chain] = {}
        self._touched: set[dt.date] = set()
        self._last: Checkpoint | None = None
        self._rebased = False
        self.signed: list[Checkpoint] = []
        self.count = 0

    async def seal(self) -> None:
        """Link new entries, in the order of their ids."""
        row = await self._connection.fetchrow(
            "SELECT snapshot, foreign_id, foreign_sealed FROM hub.audit_head"
        )
        assert row is not None, "the migration made it"
        (_, end, under_way), foreign, sealed = row
        if not sealed:
            await self._link_all(_FOREIGN, foreign)
            self._rebased = True
        await self._link_all(_NEW, end, list(under_way), foreign)

    async def _link_all(self, where: str, *arguments: Any) -> None:
        """Link all entries that meet a condition."""
        cursor = await self._connection.cursor(_ENTRIES + where + _ORDER, *arguments)
        while rows := await cursor.fetch(GROUP):
            for day in dict.fromkeys(row[0] for row in rows):
                await self._link(day, [row for row in rows if row[0] == day])

    async def _link(self, day: dt.date, rows: Sequence[Any]) -> None:
        chain = await self._chain(day)
        first = chain.sequence + 1
        ids, hashes = chain.add(rows)
        await self._connection.execute(
            "INSERT INTO hub.audit_seal (day, first_sequence, entry_ids, hashes)"
            " VALUES ($1, $2, $3, $4)",
            day,
            first,
            ids,
            hashes,
        )
        self._touched.add(day)
        self.count += len(rows)

    async def _chain(self, day: dt.date) -> Chain:
        """The chain of a day; a new one is anchored at the newest checkpoint."""
        if day not in self._chains:
            row = await self._connection.fetchrow(
                "SELECT day, anchor, last_sequence, last_hash, checked_sequence"
                " FROM hub.audit_chain WHERE day = $1",
                day,
            )
            self._chains[day] = Chain(*row) if row is not None else await self._begin(day)
        return self._chains[day]

    async def _begin(self, day: dt.date) -> Chain:
        now = await self._connection.fetchval("SELECT now()")
        await self._sign_all(now)
        last = await self._newest()
        anchor, digest = (last.number, last.digest) if last is not None else (0, b"")
        self._touched.add(day)
        return Chain(day, anchor, 0, start_chain(day, digest), 0)

    async def sign_if(self, interval: float, forced: bool) -> None:
        """Sign if the newest checkpoint is old enough, or of the future since the server's clock
        was set back: grown chains, or else the newest chain again."""
        now = await self._connection.fetchval("SELECT now()")
        last = await self._newest()
        age = interval if last is None else (now - last.time).total_seconds()
        if not forced and 0 <= age < interval:
            return
        if not await self._sign_all(now):
            day = await self._connection.fetchval("SELECT max(day) FROM hub.audit_chain")
            await self._sign(await self._chain(day or now.astimezone(dt.UTC).date()), now)

    async def sign_usage(self) -> None:
        """Sign the usage of days whose digests are new (see ``metering.days``)."""
        for day, revision, entries, digest in await self._connection.fetch(_UNSIGNED_USAGE):
            last, now = await self._newest(), await self._connection.fetchval("SELECT now()")
            signer = self._signers.choose_signer(last)
            self._last = made = signer.sign_usage(last, now, day, entries, digest)
            await insert_checkpoint(self._connection, made)
            await self._connection.execute(_NOTE_SIGNED_USAGE, day, revision, made.number)
            self.signed.append(made)

    async def _sign_all(self, now: dt.datetime) -> bool:
        """Sign every chain that has grown since it was last signed; returns whether any has."""
        rows = await self._connection.fetch(
            "SELECT day FROM hub.audit_chain WHERE last_sequence > checked_sequence"
        )
        days = sorted({row[0] for row in rows} | self._touched)
        grown = [c for c in [await self._chain(d) for d in days] if c.sequence > c.checked]
        for chain in grown:
            await self._sign(chain, now)
        return bool(grown)

    async def _sign(self, chain: Chain, now: dt.datetime) -> None:
        last = await self._newest()
        key = self._signers.choose_signer(last)
        made = key.sign(last, now, chain.day, chain.sequence, chain.hash)
        await insert_checkpoint(self._connection, made)
        chain.checked = chain.sequence
        self._touched.add(chain.day)
        self._last = made
        self.signed.append(made)

    async def _newest(self) -> Checkpoint | None:
        if self._last is None:
            self._last = await read_checkpoint(self._connection)
        return self._last

    async def save(self) -> None:
        """Store the state of the chains and the snapshot; nothing if nothing was done."""
        for day in self._touched:
            chain = self._chains[day]
            await self._connection.execute(
                "INSERT INTO hub.audit_chain"
                " (day, anchor, last_sequence, last_hash, checked_sequence)"
                " VALUES ($1, $2, $3, $4, $5) ON CONFLICT (day) DO UPDATE SET"
                " last_sequence = $3, last_hash = $4, checked_sequence = $5",
                chain.day,
                chain.anchor,
                chain.sequence,
                chain.hash,
                chain.checked,
            )
        if self._touched or self._rebased:
            # The snapshot of this transaction, with which the entries were read.
            await self._connection.execute(
                "UPDATE hub.audit_head SET snapshot = pg_current_snapshot(), foreign_sealed = true"
            )
