"""Reads the change log in its one order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from penstockd.store.database import Connection

#: A stretch ends with the change that brings its images to this many bytes. The usual stretch, of
#: 2,000 small records, has less; even many readers with a full stretch each need little memory.
STRETCH_BYTES = 2 * 1024 * 1024
_NO_BOUND = 1 << 62


@dataclass(slots=True)  # not frozen: millions are created, and frozen ones take four times as long
class Change:
    """One entry of the log, immutable; ``before`` and ``after`` are serialised records with all
    fields.

    ``number`` is contiguous over the whole log; the changes of one transaction are adjacent, and
    ``transaction`` is the number of the last of them. ``commit_time`` is when it was numbered, just
    after its commit: it never decreases from one change to the next.
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

    @property
    def size(self) -> int:
        """The bytes of its images."""
        return len(self.before or b"") + len(self.after or b"")


@dataclass(frozen=True, slots=True)
class Log:
    """The log as a whole: its ``epoch``, its newest number ``head`` and the mark there.

    Everything up to ``oldest`` has been pruned: reads that begin before it have gaps. Cursors
    without a mark date from before marks existed; only numbers up to ``marked_after`` are valid in
    them.
    """

    epoch: str
    head: int
    head_mark: bytes
    oldest: int
    oldest_mark: bytes
    marked_after: int


@dataclass(frozen=True, slots=True)
class Stretch:
    """The changes after one number up to ``number``, of some datasets.

    ``transaction`` is the last number of the transaction that ``number`` belongs to: if the two are
    equal, the stretch ends with a whole transaction. ``log`` is the log that it was read from.
    ``mark`` is the mark at ``number``, None if not read; ``place_mark`` is the mark at the
    requested place, None if the log has no such number.
    """

    changes: Sequence[Change]
    number: int
    transaction: int
    log: Log
    mark: bytes | None
    place_mark: bytes | None

    @property
    def whole(self) -> bool:
        """Whether it ends with a whole transaction."""
        return self.number == self.transaction


#: The columns of ``hub.log_head`` that make up a ``Log``.
LOG = "epoch, last_number, mark, oldest_number, oldest_mark, marked_after"

# One statement, so that it sees one state. The first two branches find transactions by the number
# of their last change and read no more than they need; changes within a transaction are found by
# their ordinal. The form of the dataset predicate hides it from the planner, which would otherwise
# scan the whole dataset index. octet_length knows the length of a large image without fetching it,
# and images beyond the bound are never fetched. Only the first row carries the values of the whole
# log: in every row they would cost time.
_STRETCH = f"""
WITH h AS MATERIALIZED (
    SELECT last_number, ROW({LOG}) AS log, least($2, last_number) AS upto,
           (SELECT ROW(t.last_number, t.mark) FROM hub.log_transaction AS t
            WHERE t.last_number >= least($2, h.last_number)
            ORDER BY t.last_number LIMIT 1) AS covering,
           (SELECT t.mark FROM hub.log_transaction AS t
            WHERE t.last_number >= $5 ORDER BY t.last_number LIMIT 1) AS place_mark
    FROM hub.log_head AS h
)
SELECT CASE WHEN size_before IS NULL THEN log END, size_before,
       number, last_number, dataset, key, operation, before, after, stamp_time, first_number
FROM (
    SELECT ROW(h.log, h.covering, h.place_mark) AS log, x.*,
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
            WHERE e.revision = t.revision AND e.day = t.day
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
    place: int | None = None,
) -> Stretch:
    """The changes with a number greater than ``after``, up to ``upto`` or the end of the log.

    It ends before ``upto`` with the change that brings the images to ``size`` bytes, so it has at
    least one change if there is any. ``place_mark`` is the mark at ``place``, by default ``after``.
    """
    names = None if datasets is None else list(datasets)
    where = after if place is None else place
    rows = await connection.fetch(_STRETCH, after, upto, names, size, where)
    columns, covering, place_mark = rows[0][0]
    log = Log(*columns)
    if where == log.oldest:
        place_mark = log.oldest_mark
    elif not log.oldest < where <= log.head:
        place_mark = None
    number = max(after, min(upto, log.head))
    changes = [Change(*row[2:]) for row in rows] if rows[0][2] is not None else []
    if changes:
        last = changes[-1]
        if (rows[-1][1] or 0) + len(last.before or b"") + len(last.after or b"") >= size:
            return Stretch(changes, last.number, last.transaction, log, None, place_mark)
    transaction, mark = covering or (number, None)
    if number == log.oldest:
        mark = log.oldest_mark
    elif number != min(upto, log.head):
        mark = None
    return Stretch(changes, number, transaction, log, mark, place_mark)


async def read_changes(connection: Connection, after: int, limit: int) -> Sequence[Change]:
    """At most ``limit`` changes with a number greater than ``after``, in order, of any size."""
    return (await read_stretch(connection, after, after + limit, size=_NO_BOUND)).changes


async def transaction_at(connection: Connection, after: int) -> tuple[int, int]:
    """First and last number of the transaction that contains the change after ``after``; both
    ``after + 1`` if there is none."""
    row = await connection.fetchrow(
        "SELECT first_number, last_number FROM hub.log_transaction"
        " WHERE last_number > $1 ORDER BY last_number LIMIT 1",
        after,
    )
    return (after + 1, after + 1) if row is None else (row[0], row[1])


async def last_number(connection: Connection) -> int:
    """The number of the newest change; pruning never lowers it."""
    return int(await connection.fetchval("SELECT last_number FROM hub.log_head"))
