"""Proves usage: what was metered is what the audit says.

For each day whose entries are there, every rollup is counted again from the entries that the fold
has passed, by the same definition (see ``counting``), in one snapshot. Of a day whose entries were
archived, the rollups are compared with the digest that a checkpoint of the audit signs.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from penstockd.audit.checkpoint import Checkpoint, CheckpointKind
from penstockd.audit.stored_checkpoints import read_checkpoints
from penstockd.audit.succession import trust_keys
from penstockd.metering.counting import MINUTE, NOTHING, SUMS, TRAIT_COUNT, TRAITS, UsageCounts
from penstockd.metering.digests import day_span, digest_level, join_digests, read_digest
from penstockd.metering.rollups import UsageLevel, read_levels
from penstockd.metering.series import Series, SeriesMaker
from penstockd.store.database import Connection

#: The most findings that are listed; further ones are counted.
MAX_FINDINGS = 100
_GROUP = 2000

_DAYS = """
SELECT day, c.anchor, c.last_sequence, p.anchor, p.folded, p.entries, p.missing
FROM hub.audit_chain AS c FULL JOIN hub.usage_place AS p USING (day)
FULL JOIN (SELECT DISTINCT (bucket_time AT TIME ZONE 'UTC')::date AS day FROM hub.usage_day) AS u
    USING (day)
WHERE day BETWEEN $1 AND $2 ORDER BY day
"""
_AUDITED = f"""
SELECT date_trunc($3, {MINUTE}, 'UTC'), {SUMS}, {TRAITS} FROM hub.audit_entry AS e
WHERE e.day = $1 AND e.entry_id IN (
    SELECT unnest(entry_ids) FROM hub.audit_seal WHERE day = $1 AND first_sequence <= $2)
GROUP BY 1, {", ".join(str(at) for at in range(6, 6 + TRAIT_COUNT))} ORDER BY 1
"""
_METERED = f"""
SELECT u.bucket_time, u.calls, u.errors, u.records, u.bytes,
    {", ".join(f"s.{name}" for name in Series._fields)}
FROM {{table}} AS u JOIN hub.usage_series AS s USING (series_id)
WHERE u.bucket_time >= $1 AND u.bucket_time < $2 ORDER BY u.bucket_time
"""
#: The rollups of a level that are not the sums of a finer one.
_UNEQUAL = """
SELECT count(*), min(bucket_time) FROM (
    SELECT date_trunc($3, bucket_time, 'UTC') AS bucket_time, series_id, sum(calls) AS calls,
        sum(errors) AS errors, sum(records) AS records, sum(bytes) AS bytes
    FROM {finer} WHERE bucket_time >= $1 AND bucket_time < $2 GROUP BY 1, 2) AS f
FULL JOIN (SELECT * FROM {table} WHERE bucket_time >= $1 AND bucket_time < $2) AS u
    USING (bucket_time, series_id)
WHERE (f.calls, f.errors, f.records, f.bytes)
    IS DISTINCT FROM (u.calls::numeric, u.errors::numeric, u.records::numeric, u.bytes::numeric)
"""
_SUM = """
SELECT coalesce(sum(calls), 0)::bigint, coalesce(sum(errors), 0)::bigint,
    coalesce(sum(records), 0)::bigint, coalesce(sum(bytes), 0)::bigint
FROM {table} WHERE bucket_time >= $1 AND bucket_time < $2
"""


@dataclass(frozen=True, slots=True)
class UsageFinding:
    """A difference, or a rollup that no signature proves."""

    day: dt.date
    description: str

    def __str__(self) -> str:
        return f"{self.day}: {self.description}"


@dataclass(slots=True)
class Reconciliation:
    """The result for a range of days. ``metered`` are the rollups, ``audited`` the entries of the
    days that were ``compared``; ``signed`` are the rollups of days whose entries were archived, and
    that a checkpoint proves. ``unfolded`` entries are sealed, but not counted yet."""

    metered: UsageCounts = NOTHING
    audited: UsageCounts = NOTHING
    signed: UsageCounts = NOTHING
    entries: int = 0
    unfolded: int = 0
    compared: list[dt.date] = field(default_factory=list)
    proved: list[dt.date] = field(default_factory=list)
    findings: list[UsageFinding] = field(default_factory=list)
    found: int = 0

    def find(self, day: dt.date, description: str) -> None:
        """Note a finding."""
        self.found += 1
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(UsageFinding(day, description))


@dataclass(frozen=True, slots=True)
class _Day:
    """A day: its chain in the audit, and how far the fold has come. None: there is none."""

    day: dt.date
    anchor: int | None
    length: int | None
    place: int | None
    folded: int | None
    entries: int | None
    missing: int | None

    @property
    def whole(self) -> bool:
        """Whether the entries of all its rollups are still in the database."""
        if self.folded is None:
            return True
        return self.anchor == self.place and self.folded == self.entries


async def reconcile_usage(
    connection: Connection,
    keys: Collection[bytes],
    outside: Sequence[Checkpoint],
    first: dt.date,
    last: dt.date,
) -> Reconciliation:
    """Reconcile the days from ``first`` to ``last``, which the connection sees in one snapshot.

    ``keys`` are trusted to sign checkpoints; ``outside`` are the checkpoints of the file.
    """
    work = _Work(connection, await read_levels(connection))
    checkpoints = await read_checkpoints(connection)
    trusted = trust_keys(keys, checkpoints, outside)
    for row in await connection.fetch(_DAYS, first, last):
        day = _Day(*row)
        if day.whole:
            await work.compare(day)
        else:
            await work.check_signature(day, [*checkpoints, *outside], trusted)
    return work.result


class _Work:
    """One reconciliation."""

    def __init__(self, connection: Connection, whole: Mapping[UsageLevel, dt.date]) -> None:
        self._connection, self._whole = connection, whole
        self._series = SeriesMaker()
        self.result = Reconciliation()

    def _levels(self, day: dt.date) -> list[UsageLevel]:
        """The levels that are kept of a day, finest first."""
        return [level for level in UsageLevel if day >= self._whole[level]]

    async def compare(self, at: _Day) -> None:
        """Count a day again from its entries."""
        result, folded = self.result, at.folded or 0
        result.unfolded += (at.length or 0) - folded
        result.entries += folded
        if at.missing:
            result.find(at.day, f"{at.missing:,} sealed entries were missing when it was counted")
        levels = self._levels(at.day)
        if not levels:
            return
        result.compared.append(at.day)
        audited = self._audited(at.day, folded, levels[0])
        metered = self._metered(at.day, levels[0])
        right, own = await anext(audited, None), await anext(metered, None)
        while right is not None or own is not None:
            time = min(side[0] for side in (right, own) if side is not None)
            counted = right[1] if right is not None and right[0] == time else {}
            rolled = own[1] if own is not None and own[0] == time else {}
            self._compare_bucket(at.day, time, rolled, counted)
            if right is not None and right[0] == time:
                right = await anext(audited, None)
            if own is not None and own[0] == time:
                own = await anext(metered, None)
        await self._compare_levels(at.day, levels)

    def _compare_bucket(
        self,
        day: dt.date,
        time: dt.datetime,
        metered: Mapping[Series, UsageCounts],
        audited: Mapping[Series, UsageCounts],
    ) -> None:
        result = self.result
        for series in sorted(metered.keys() | audited.keys()):
            own, right = metered.get(series, NOTHING), audited.get(series, NOTHING)
            result.metered, result.audited = result.metered.plus(own), result.audited.plus(right)
            if own != right:
                result.find(
                    day, f"{time:%H:%M} {_name_series(series)}: {_describe_counts(own, right)}"
                )

    async def _compare_levels(self, day: dt.date, levels: Sequence[UsageLevel]) -> None:
        """Check that each level is the sum of the finest."""
        for level in levels[1:]:
            sql = _UNEQUAL.format(finer=levels[0].table, table=level.table)
            row = await self._connection.fetchrow(sql, *day_span(day), level.value)
            if row is not None and row[0]:
                self.result.find(
                    day,
                    f"{row[0]:,} rollups by the {level} are not the sums of those by the"
                    f" {levels[0]}; the first is that of {row[1]:%H:%M}",
                )

    async def _audited(
        self, day: dt.date, folded: int, level: UsageLevel
    ) -> AsyncIterator[tuple[dt.datetime, dict[Series, UsageCounts]]]:
        cursor = await self._connection.cursor(_AUDITED, day, folded, level.value)
        async for time, rows in _by_bucket(cursor):
            await self._series.learn(self._connection, [row[5:] for row in rows])
            sums: dict[Series, UsageCounts] = {}
            for row in rows:
                if (counts := UsageCounts(*row[1:5])) != NOTHING:
                    series = self._series.make(row[5:])
                    sums[series] = sums.get(series, NOTHING).plus(counts)
            self._series.forget()
            yield time, sums

    async def _metered(
        self, day: dt.date, level: UsageLevel
    ) -> AsyncIterator[tuple[dt.datetime, dict[Series, UsageCounts]]]:
        sql = _METERED.format(table=level.table)
        cursor = await self._connection.cursor(sql, *day_span(day))
        async for time, rows in _by_bucket(cursor):
            yield time, {Series(*row[5:]): UsageCounts(*row[1:5]) for row in rows}

    async def check_signature(
        self, at: _Day, checkpoints: Sequence[Checkpoint], trusted: Mapping[bytes, int]
    ) -> None:
        """Compare the rollups of a day whose entries are gone with what was signed of them."""
        day, result = at.day, self.result
        stored = await read_digest(self._connection, day)
        signed = max(
            (c for c in checkpoints if c.kind is CheckpointKind.USAGE and c.day == day),
            key=lambda c: c.number,
            default=None,
        )
        if stored is None or signed is None:
            return result.find(day, "its entries are gone, and nothing signs its usage")
        if signed.number > trusted.get(signed.public_key, -1):
            return result.find(day, f"checkpoint {signed.number} is signed with an unknown key")
        if not signed.signed_by(signed.public_key):
            return result.find(day, f"the signature of checkpoint {signed.number} does not match")
        whole = join_digests(day, stored.entries, stored.levels)
        if (signed.sequence, signed.hash) != (stored.entries, whole):
            return result.find(day, f"its digests are not what checkpoint {signed.number} signs")
        if stored.entries != at.entries:
            return result.find(day, "entries were counted since it was signed")
        for level in self._levels(day):
            if await digest_level(self._connection, day, level) != stored.levels[level]:
                return result.find(day, f"its rollups by the {level} are not what was signed")
        result.proved.append(day)
        for level in self._levels(day)[:1]:
            sql = _SUM.format(table=level.table)
            row = await self._connection.fetchrow(sql, *day_span(day))
            assert row is not None, "sums always have a row"
            result.signed = result.signed.plus(UsageCounts(*row))


async def _by_bucket(cursor: Any) -> AsyncIterator[tuple[dt.datetime, list[Any]]]:
    """The rows of a cursor, those of one bucket together."""
    held: list[Any] = []
    while rows := await cursor.fetch(_GROUP):
        for row in rows:
            if held and held[0][0] != row[0]:
                yield held[0][0], held
                held = []
            held.append(row)
    if held:
        yield held[0][0], held


def _name_series(series: Series) -> str:
    """A series for people: what is not empty."""
    return " ".join(f"{n}={v}" for n, v in zip(series._fields, series, strict=True) if v)


def _describe_counts(metered: UsageCounts, audited: UsageCounts) -> str:
    parts = [
        f"{name} {own:,}, audited {right:,}"
        for name, own, right in zip(UsageCounts._fields, metered, audited, strict=True)
        if own != right
    ]
    return "metered " + "; ".join(parts)
