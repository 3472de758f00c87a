"""Reads the change log in its one order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from penstockd.store.database import Connection


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
# it would be walked from end to end.
_STRETCH = """
WITH h AS MATERIALIZED (
    SELECT epoch, last_number, oldest_number, least($2, last_number) AS upto,
           (SELECT t.last_number FROM hub.log_transaction AS t
            WHERE t.last_number >= least($2, h.last_number)
            ORDER BY t.last_number LIMIT 1) AS covering
    FROM hub.log_head AS h
)
SELECT h.epoch, h.last_number, h.oldest_number, h.covering, x.*
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
ORDER BY x.number
"""


async def read_stretch(
    connection: Connection, after: int, upto: int, datasets: Sequence[str] | None = None
) -> Stretch:
    """The changes with a number greater than ``after``, to ``upto`` or as far as there are any."""
    names = None if datasets is None else list(datasets)
    rows = await connection.fetch(_STRETCH, after, upto, names)
    epoch, head, oldest, covering = rows[0][:4]
    number = max(after, min(upto, head))
    changes = [Change(*row[4:]) for row in rows] if rows[0][4] is not None else []
    return Stretch(changes, number, covering or number, epoch, head, oldest)


async def read_changes(connection: Connection, after: int, limit: int) -> Sequence[Change]:
    """At most ``limit`` changes with a number greater than ``after``, in order."""
    return (await read_stretch(connection, after, after + limit)).changes


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
