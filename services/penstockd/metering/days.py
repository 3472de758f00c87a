"""Closes days of usage, and drops rollups that are old enough; runs in the keeper.

A day that is over, and whose sealed entries are all counted, gets a digest of its rollups, which
the sealer signs into the audit's checkpoints. Entries that come later, of transactions that were
still open, lead to another digest. Rollups are dropped only of days whose digest is signed.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Mapping

import structlog

from penstockd.metering.digests import day_span, digest_level, insert_digest, read_digest
from penstockd.metering.rollups import UsageLevel, read_levels
from penstockd.store.database import Connection
from penstockd.store.fences import Transactions

#: How often days to close or to drop are looked for, in seconds.
INTERVAL = 60.0
#: How long after its end a day is closed: transactions that were open then may bring more entries.
SETTLED = dt.timedelta(minutes=10)
#: The most rollups that one transaction drops.
_PIECE = 50_000

#: The earliest day that is over and folded, and has more entries than its newest digest states.
_CLOSABLE = """
SELECT p.day, p.entries FROM hub.usage_place AS p
LEFT JOIN hub.audit_chain AS c ON c.day = p.day
WHERE p.day < ((now() - $1::interval) AT TIME ZONE 'UTC')::date
    AND (c.day IS NULL OR c.anchor = p.anchor AND c.last_sequence = p.folded)
    AND p.entries <> coalesce((
        SELECT d.entries FROM hub.usage_digest AS d WHERE d.day = p.day
        ORDER BY d.revision DESC LIMIT 1), 0)
ORDER BY p.day LIMIT 1
"""
#: The first day that has no signed digest of all its entries.
_UNSIGNED = """
SELECT min(p.day) FROM hub.usage_place AS p WHERE NOT EXISTS (
    SELECT FROM hub.usage_digest AS d
    WHERE d.day = p.day AND d.entries = p.entries AND d.checkpoint IS NOT NULL)
"""
_DROP = """
DELETE FROM {table} WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM {table} WHERE bucket_time < $1 ORDER BY bucket_time LIMIT $2))
"""

_log = structlog.get_logger(__name__)


class UsageDays:
    """Closes days, and keeps the rollups of each level for a number of days."""

    def __init__(self, database: Transactions, kept: Mapping[UsageLevel, int]) -> None:
        self._database, self._kept = database, kept

    async def run(self) -> None:
        """Look every INTERVAL until cancelled. Raises DatabaseUnavailable."""
        while True:
            while (await self.close_next()) is not None:
                pass
            await self.drop_old()
            await asyncio.sleep(INTERVAL)

    async def close_next(self) -> dt.date | None:
        """Store the digest of the earliest day that needs one; returns the day, None if none does.

        All is read in one snapshot, while the fold goes on.
        """
        async with self._database.transaction(isolation="repeatable_read") as connection:
            row = await connection.fetchrow(_CLOSABLE, SETTLED)
            if row is None:
                return None
            day: dt.date = row[0]
            entries: int = row[1]
            whole, known = await read_levels(connection), await read_digest(connection, day)
            levels = {}
            for level in UsageLevel:
                if day >= whole[level] or known is None:
                    levels[level] = await digest_level(connection, day, level)
                else:  # dropped: what was signed of it stays
                    levels[level] = known.levels[level]
            await insert_digest(connection, day, entries, levels)
        _log.info("usage_day_closed", day=str(day), entries=entries)
        return day

    async def drop_old(self) -> dict[UsageLevel, int]:
        """Drop rollups that are old enough, level by level; returns how many."""
        dropped = dict.fromkeys(UsageLevel, 0)
        for level in UsageLevel:
            while count := await self._drop_piece(level):
                dropped[level] += count
        return dropped

    async def _drop_piece(self, level: UsageLevel) -> int:
        async with self._database.transaction() as connection:
            before = await self._first_kept(connection, level)
            if before is None:
                return 0
            # Before the first rollup is gone, no report takes the day for whole.
            await connection.execute(
                "UPDATE hub.usage_level SET oldest_day = $2"
                " WHERE level = $1 AND coalesce(oldest_day, '-infinity') < $2",
                level.value,
                before,
            )
            sql = _DROP.format(table=level.table)
            done: str = await connection.execute(sql, day_span(before)[0], _PIECE)
        return int(done.rpartition(" ")[2])

    async def _first_kept(self, connection: Connection, level: UsageLevel) -> dt.date | None:
        """The first day that is kept of a level; None if all days are."""
        today: dt.date = await connection.fetchval("SELECT (now() AT TIME ZONE 'UTC')::date")
        before = today - dt.timedelta(days=self._kept[level])
        unsigned = await connection.fetchval(_UNSIGNED)
        if unsigned is not None:
            before = min(before, unsigned)
        oldest = await connection.fetchval(
            f"SELECT min(bucket_time) FROM {level.table} WHERE bucket_time < $1",
            day_span(before)[0],
        )
        return before if oldest is not None else None
