"""Reads the change log in its one order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from penstockd.store.database import Connection


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of the log; ``before`` and ``after`` are serialised records, all fields in them.

    ``number`` is contiguous over the whole log; the changes of one transaction are adjacent.
    """

    number: int
    transaction: int
    dataset: str
    key: str
    operation: int
    before: bytes | None
    after: bytes | None
    commit_time: datetime


_READ = """
SELECT t.first_number + c.ordinal, t.last_number, c.dataset, c.key, c.operation,
       c.before, c.after, t.write_time
FROM hub.log_transaction AS t JOIN hub.change AS c ON c.txid = t.txid AND c.day = t.day
WHERE t.last_number > $1 AND t.first_number + c.ordinal > $1
ORDER BY t.last_number, c.ordinal
LIMIT $2
"""


async def read_changes(connection: Connection, after: int, limit: int) -> Sequence[Change]:
    """At most ``limit`` changes with a number greater than ``after``, in order."""
    return [Change(*row) for row in await connection.fetch(_READ, after, limit)]


async def last_number(connection: Connection) -> int:
    """The number of the newest change; it never falls back, whatever is pruned."""
    return int(await connection.fetchval("SELECT last_number FROM hub.log_head"))
