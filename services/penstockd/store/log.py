"""Reads the change log in its one order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from penstockd.store.database import Connection

#: A stretch ends with the change that brings its images to so many bytes. The usual stretch, of
#: 2,000 small records, has less; a stretch of many, given to one reader each, is still no burden.
STRETCH_BYTES = 2 * 1024 * 1024
_NO_BOUND = 1 << 62


@dataclass(slots=True)  # not frozen: that takes four times as long to make, a million times
class Change:
    """One entry of the log, never changed; ``before`` and ``after`` are serialised records with all
    fields in them.

    ``number`` is contiguous over the whole log; the changes of one transaction are adjacent, and
    ``transaction`` is the number of the last of them. ``commit_time`` is when it was numbered,
    just after its commit: it never falls from one change to the next.
    """

    number: int
    transaction: int
    dataset: str
    key: str
    operation: int
    before: bytes | None
    after: bytes | None
    commit_time: datetime
    first: int = 0  # the number of the transaction's first change


@dataclass(frozen=True, slots=True)
class Stretch:
    """The changes after one number up to ``number``, of some datasets.

    ``transaction`` is the last number of the transaction that ``number`` belongs to: where the two
    are equal, the stretch ends with a whole transaction. ``epoch`` is that of the log, ``head`` its
    newest number; everything up to ``oldest`` has been pruned: what begins before it has gaps.
    """

    changes: Sequence[Change]
    number: int
    transaction: int
    epoch: str
    head: int
    oldest: int

    @property
    def whole(self) -> bool:
        """Whether it ends with a whole transaction."""
        return self.number == self.transaction


# One statement, so that all of it is seen in one state. A transaction is found by the number of
# its last change, of which the first two branches read no more than they need; within it, changes
# are found by their ordinal. Datasets are compared so that no index of theirs seems to be of use:
# it would be walked from end to end. octet_length knows the length of a large image without
# fetching it, and those behind the bound are never fetched. Nothing is before the first row alone,
# which tells the epoch for all of them: a text in every row would be felt.
_STRETCH = """
WITH h AS MATERIALIZED (
    SELECT epoch, last_number, oldest_number, least($2, last_number) AS upto,
           (SELECT t.last_number FROM hub.log_transaction AS t
            WHERE t.last_number >= least($2, h.last_number)
            ORDER BY t.last_number LIMIT 1) AS covering
    FROM hub.log_head AS h
)
SELECT CASE WHEN size_before IS NULL THEN epoch END, head, oldest_number, covering, size_before,
       number, last_number, dataset, key, operation, before, after, stamp_time, first_number
FROM (
    SELECT h.epoch, h.last_number AS head, h.oldest_number, h.covering, x.*,
           sum(coalesce(octet_length(x.before), 0) + coalesce(octet_length(x.after), 0))
           OVER (ORDER BY x.number ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS size_before
    FROM h
    LEFT JOIN LATERAL (
        SELECT t.first_number + c.ordinal AS number, t.last_number, c.dataset, c.key, c.operation,
               c.before, c.after, t.stamp_time, t.first_number
        FROM (
            (SELECT * FROM hub.log_transaction AS w
             WHERE w.last_number > $1 AND w.last_number <= h.upto)
            UNION ALL
            (SELECT * FROM (SELECT * FROM hub.log_transaction AS w WHERE w.last_number > h.upto
                            AND w.last_number > $1 ORDER BY w.last_number LIMIT 1) AS cut
             WHERE cut.first_number <= h.upto)
        ) AS t
        CROSS JOIN LATERAL (
            SELECT * FROM hub.change AS e
            WHERE e.txid = t.txid AND e.day = t.day
            AND e.ordinal > $1 - t.first_number AND e.ordinal <= h.upto - t.first_number
            AND ($3::text[] IS NULL OR array_position($3::text[], e.dataset::text) IS NOT NULL)
        ) AS c
    ) AS x ON true
) AS s
WHERE size_before IS NULL OR size_before < $4
ORDER BY number
"""


async def read_stretch(
    connection: Connection,
    after: int,
    upto: int,
    datasets: Sequence[str] | None = None,
    size: int = STRETCH_BYTES,
) -> Stretch:
    """The changes with a number greater than ``after``, to ``upto`` or as far as there are any.

    It ends before ``upto`` where the images have come to ``size`` bytes: it has less than that and
    one change more, and never none if there is one.
    """
    names = None if datasets is None else list(datasets)
    rows = await connection.fetch(_STRETCH, after, upto, names, size)
    epoch, head, oldest, covering = rows[0][:4]
    number = max(after, min(upto, head))
    changes = [Change(*row[5:]) for row in rows] if rows[0][5] is not None else []
    if changes:
        last = changes[-1]
        if (rows[-1][4] or 0) + len(last.before or b"") + len(last.after or b"") >= size:
            return Stretch(changes, last.number, last.transaction, epoch, head, oldest)
    return Stretch(changes, number, covering or number, epoch, head, oldest)


async def read_changes(connection: Connection, after: int, limit: int) -> Sequence[Change]:
    """At most ``limit`` changes with a number greater than ``after``, in order, of any size."""
    return (await read_stretch(connection, after, after + limit, size=_NO_BOUND)).changes


async def transaction_at(connection: Connection, after: int) -> tuple[int, int]:
    """First and last number of the transaction that the change after a number belongs to; beyond
    all numbers if there is none."""
    row = await connection.fetchrow(
        "SELECT first_number, last_number FROM hub.log_transaction"
        " WHERE last_number > $1 ORDER BY last_number LIMIT 1",
        after,
    )
    return (after + 1, after + 1) if row is None else (row[0], row[1])


async def last_number(connection: Connection) -> int:
    """The number of the newest change; it never falls back, whatever is pruned."""
    return int(await connection.fetchval("SELECT last_number FROM hub.log_head"))
