"""The rows of ``hub.singleton``: the holder of each task that one node does for all, and whether
the task fails."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from penstockd.store.database import Connection

#: Tasks that only one node does at a time; see ``keeper``.
SINGLETONS = (
    "sequencer",
    "partitions",
    "stored-replies",
    "log-retention",
    "audit-sealer",
    "audit-retention",
    "signing-keys",
    "webhooks",
    "webhook-retention",
    "lost-streams",
    "lost-portions",
    "usage",
    "usage-days",
)
#: Seconds that a lease lasts.
LENGTH = 6.0

_READ = """
SELECT name, term, node_id, host, extract(epoch FROM clock_timestamp() - expire_time)::float8,
       expire_time > clock_timestamp() + $1, instance, fail_time, failure
FROM hub.singleton
"""
#: The time is that of the first failure, even if the next holder fails as well.
_NOTE_FAILURE = """
UPDATE hub.singleton SET failure = $2,
    fail_time = coalesce(fail_time, clock_timestamp() - make_interval(secs => $3))
WHERE name = $1
"""
_NOTE_RECOVERY = """
UPDATE hub.singleton SET failure = '', fail_time = NULL WHERE name = $1 AND fail_time IS NOT NULL
"""
#: The most characters of an error that a row keeps.
_FAILURE_LENGTH = 200


class Holder(NamedTuple):
    """Who holds a lease: a node, and the run of its keeper. A copied data folder makes two nodes
    with one id, but no two runs share an instance."""

    node_id: str
    instance: str


@dataclass(frozen=True, slots=True)
class Singleton:
    """A row as read. ``unheld`` is the seconds since its lease ended, negative before that;
    ``fail_time`` is the time since which the task fails, under any holder."""

    name: str
    term: int
    node_id: str
    host: str
    unheld: float
    impossible: bool = False
    instance: str = ""
    fail_time: datetime | None = None
    failure: str = ""

    @property
    def free(self) -> bool:
        """Whether the lease may be taken."""
        return self.unheld >= 0 or self.impossible

    @property
    def holder(self) -> Holder:
        """The last holder."""
        return Holder(self.node_id, self.instance)


async def read_singletons(connection: Connection) -> list[Singleton]:
    """All rows. Raises the driver's errors."""
    return [Singleton(*row) for row in await connection.fetch(_READ, timedelta(seconds=LENGTH))]


async def note_failure(connection: Connection, name: str, failure: str, seconds: float) -> None:
    """Record that a task has failed for a number of seconds. Raises the driver's errors."""
    await connection.execute(_NOTE_FAILURE, name, failure[:_FAILURE_LENGTH], seconds)


async def note_recovery(connection: Connection, name: str) -> None:
    """Record that a task works. Raises the driver's errors."""
    await connection.execute(_NOTE_RECOVERY, name)
