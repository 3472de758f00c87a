"""Folds sealed audit entries into the rollups of usage; runs in the keeper.

The place of the fold is a number of the sealer in the chain of a day, and it moves in the same
transaction as the rollups that it changes: every entry is counted once, whatever is killed. Ids of
entries are no places, since entries become visible in another order than that of their ids.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import math
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import structlog

from penstockd.errors import Conflict
from penstockd.metering.access_uses import PRUNE, TIMES, UseTimes, put_uses
from penstockd.metering.checks import add_checks, is_check
from penstockd.metering.counting import MINUTE, NOTHING, SUMS, TRAIT_COUNT, TRAITS, UsageCounts
from penstockd.metering.rollups import Place, UsageLevel, add_counts
from penstockd.metering.series import SeriesMaker, identify_series
from penstockd.store.database import Connection
from penstockd.store.fences import Transactions

#: How often sealed entries are looked for, in seconds.
FOLD_INTERVAL = 0.25
#: How often series of which no rollup is left are looked for, in seconds.
PRUNE_INTERVAL = 86_400.0
#: About how many entries one transaction folds; it ends with a group of the sealer.
BATCH = 50_000

#: The chains that have unfolded entries. An archived day can get another chain, which hangs from
#: another checkpoint. The seals decide, not the stated length of a chain: one that states more than
#: it has must not hold up the days after it.
UNFOLDED = """
hub.audit_chain AS c
LEFT JOIN hub.usage_place AS p ON p.day = c.day AND p.anchor = c.anchor
WHERE EXISTS (
    SELECT FROM hub.audit_seal AS s
    WHERE s.day = c.day AND s.first_sequence > coalesce(p.folded, 0))
"""
_NEXT = f"""
SELECT c.day, c.anchor, coalesce(p.folded, 0) AS folded FROM {UNFOLDED} ORDER BY c.day LIMIT 1
"""
_SEALED = """
SELECT first_sequence, entry_ids FROM hub.audit_seal
WHERE day = $1 AND first_sequence > $2 AND first_sequence <= $3 ORDER BY first_sequence
"""
_GROUPS = f"""
SELECT {MINUTE}, count(*), {SUMS}, {TIMES}, {TRAITS} FROM hub.audit_entry AS e
WHERE e.day = $1 AND e.entry_id = ANY ($2::bigint[])
GROUP BY 1, {", ".join(str(at) for at in range(10, 10 + TRAIT_COUNT))}
"""
#: The columns of a group that are its counts, its times, and those of which its series is made.
_COUNTS, _TIMES, _TRAITS = slice(2, 6), slice(6, 9), slice(9, None)
#: The method among the latter.
_METHOD = 2
_MOVE = """
INSERT INTO hub.usage_place AS p (day, anchor, folded, entries, missing)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (day) DO UPDATE SET anchor = excluded.anchor, folded = excluded.folded,
    entries = p.entries + excluded.entries, missing = p.missing + excluded.missing
"""
_PRUNE_SERIES = f"""
DELETE FROM hub.usage_series AS s
WHERE EXISTS (
    SELECT FROM hub.usage_level WHERE level = '{UsageLevel.DAY}' AND oldest_day IS NOT NULL)
AND NOT EXISTS (SELECT FROM {UsageLevel.DAY.table} AS u WHERE u.series_id = s.series_id)
"""
_UNFOLDED_DAY = f"SELECT EXISTS (SELECT FROM {UNFOLDED} AND c.day = $1)"
_NEWEST_FOLDED = f"SELECT (SELECT min(c.day) FROM {UNFOLDED}), max(day) FROM hub.audit_chain"

_log = structlog.get_logger(__name__)


class SealMissing(Exception):
    """Usage stops here: a group of sealed entries is gone from the audit, or was cut.

    Whatever stands behind the gap is not counted, since nobody knows what stood in it. The keeper
    reports this as the failure of the singleton ``usage`` until an operator has restored the audit.
    """

    def __init__(self, at: _FoldPlace, found: int | None) -> None:
        there = f"the next seal begins with entry {found}" if found is not None else "others follow"
        super().__init__(
            f"usage is counted up to entry {at.folded} of {at.day} and no further: the seal of"
            f" entry {at.folded + 1} is missing from the audit, and {there};"
            " 'penstock audit verify' says more"
        )


class _FoldPlace(NamedTuple):
    """Where the next entries to fold begin: after ``folded`` of the chain of a day."""

    day: dt.date
    anchor: int
    folded: int


class UsageFold:
    """Folds entries, about BATCH in a transaction."""

    def __init__(self, database: Transactions, *, batch: int = BATCH) -> None:
        self._database, self._batch = database, batch
        self._series = SeriesMaker()
        #: When series were last pruned, by the monotonic clock.
        self._pruned = -math.inf

    async def run(self) -> None:
        """Fold what is sealed every FOLD_INTERVAL until cancelled.

        Raises DatabaseUnavailable, SealMissing.
        """
        while True:
            try:
                while await self.fold_next():
                    pass
                if time.monotonic() - self._pruned >= PRUNE_INTERVAL:
                    await self.prune_series()
                    self._pruned = time.monotonic()
            except Conflict:
                _log.warning("usage_folded_by_another")  # the next pass sees its work
            await asyncio.sleep(FOLD_INTERVAL)

    async def fold_next(self) -> int:
        """Fold the next entries, and return how many; 0 if all sealed entries are folded.

        Raises Conflict if another process also folds, SealMissing.
        """
        async with self._database.transaction(isolation="repeatable_read") as connection:
            row = await connection.fetchrow(_NEXT)
            count = await self._fold(connection, _FoldPlace(*row)) if row is not None else 0
        self._series.forget()
        return count

    async def prune_series(self) -> int:
        """Delete the series of which no rollup is left, and uses as old; returns how many series.

        Rollups by the day are the last that are dropped. Only the fold adds rollups of a series, so
        that nothing else may delete series.
        """
        async with self._database.transaction() as connection:
            done: str = await connection.execute(_PRUNE_SERIES)
            await connection.execute(PRUNE)
        return int(done.rpartition(" ")[2])

    async def _fold(self, connection: Connection, at: _FoldPlace) -> int:
        seals = await connection.fetch(_SEALED, at.day, at.folded, at.folded + self._batch)
        ids = _join_groups(at, seals)
        groups = await connection.fetch(_GROUPS, at.day, ids)
        found = sum(group[1] for group in groups)
        if found < len(ids):
            _log.error("usage_entries_missing", day=str(at.day), entries=len(ids) - found)
        await self._count(connection, groups)
        if any(is_check(group[_TRAITS][_METHOD]) for group in groups):
            await add_checks(connection, at.day, ids)
        await connection.execute(
            _MOVE, at.day, at.anchor, at.folded + len(ids), len(ids), len(ids) - found
        )
        return len(ids)

    async def _count(self, connection: Connection, groups: Sequence[Any]) -> None:
        """Add what groups of entries count, by minute and series, and note the uses of access."""
        await self._series.learn(connection, [group[_TRAITS] for group in groups])
        made = [(group, self._series.make(tuple(group[_TRAITS]))) for group in groups]
        await put_uses(connection, ((series, UseTimes(*group[_TIMES])) for group, series in made))
        counted = [
            (group[0], series, counts)
            for group, series in made
            if (counts := UsageCounts(*group[_COUNTS])) != NOTHING
        ]
        ids = await identify_series(connection, {series for _, series, _ in counted})
        sums: dict[Place, UsageCounts] = {}
        for minute, series, counts in counted:
            place = (minute, ids[series])
            sums[place] = sums.get(place, NOTHING).plus(counts)
        await add_counts(connection, sums)


def _join_groups(at: _FoldPlace, seals: Sequence[Any]) -> list[int]:
    """The ids of the entries that follow a place, of groups that follow each other.

    Raises SealMissing if the first group that is there does not follow the place.
    """
    ids: list[int] = []
    for first, group in seals:
        if first != at.folded + len(ids) + 1:
            break  # what precedes the gap is counted; the next pass stops at it
        ids += group
    if not ids:
        raise SealMissing(at, seals[0][0] if seals else None)
    return ids


async def is_folded(connection: Connection, day: dt.date) -> bool:
    """Whether every sealed entry of a day is counted: only then may the day be dropped."""
    return not await connection.fetchval(_UNFOLDED_DAY, day)


async def newest_folded_day(connection: Connection) -> dt.date | None:
    """The newest day up to which every sealed entry is counted; None if there is none.

    The day may still get entries, if it is not over.
    """
    row = await connection.fetchrow(_NEWEST_FOLDED)
    assert row is not None, "aggregates always have a row"
    unfolded: dt.date | None = row[0]
    newest: dt.date | None = row[1]
    return newest if unfolded is None else unfolded - dt.timedelta(days=1)
