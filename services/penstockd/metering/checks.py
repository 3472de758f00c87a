"""Comparisons of receivers' copies with the hub, by digests: each call ``Repair`` is one.

Their entries state how many records were compared, and how much differed. Folded with usage.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection
from typing import NamedTuple

from penstockd.metering.counting import DATASET_METHODS
from penstockd.store.database import Connection

_ADD = f"""
INSERT INTO hub.check_day AS c
SELECT $1, coalesce(e.consumer_id, ''), coalesce(e.dataset, ''), count(*),
    count(*) FILTER (WHERE (e.query ->> 'differing')::bigint = 0),
    sum((e.query ->> 'compared')::bigint), sum((e.query ->> 'unequal_records')::bigint)
FROM hub.audit_entry AS e
WHERE e.day = $1 AND e.entry_id = ANY ($2::bigint[]) AND e.phase = 'CALL' AND e.outcome = 'OK'
    AND e.method LIKE '{DATASET_METHODS}%/Repair%'
    AND e.query ->> 'compared' ~ '^[0-9]{{1,15}}$' AND e.query ->> 'differing' ~ '^[0-9]{{1,15}}$'
    AND e.query ->> 'unequal_records' ~ '^[0-9]{{1,15}}$'
GROUP BY 2, 3 ORDER BY 2, 3
ON CONFLICT (day, consumer_id, dataset) DO UPDATE SET checks = c.checks + excluded.checks,
    passed = c.passed + excluded.passed, compared = c.compared + excluded.compared,
    differing = c.differing + excluded.differing
"""
_SUM = """
SELECT coalesce(sum(checks), 0)::bigint, coalesce(sum(passed), 0)::bigint,
    coalesce(sum(compared), 0)::bigint, coalesce(sum(differing), 0)::bigint
FROM hub.check_day WHERE day >= $1 AND day < $2
"""


class CheckCounts(NamedTuple):
    """Comparisons, those that found no difference, records compared, and records that differed."""

    checks: int
    passed: int
    compared: int
    differing: int


def is_check(method: str) -> bool:
    """Whether a method compares a receiver's copy with the hub."""
    return method.startswith(DATASET_METHODS) and "/Repair" in method


async def add_checks(connection: Connection, day: dt.date, ids: Collection[int]) -> None:
    """Count the comparisons among some entries of a day."""
    await connection.execute(_ADD, day, ids)


async def sum_checks(connection: Connection, first: dt.date, end: dt.date) -> CheckCounts:
    """The counts of the days from ``first`` to before ``end``."""
    row = await connection.fetchrow(_SUM, first, end)
    assert row is not None, "aggregates always have a row"
    return CheckCounts(*row)
