"""Cuts a range of keys into smaller ones and digests each."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from penstockd.digests.comparison import DigestComparison, check_bounds
from penstockd.digests.ranges import (
    Enough,
    Patience,
    Range,
    Tally,
    digest_at,
    key_at,
)
from penstockd.errors import ValueInvalid
from penstockd.native.digest_kernel import Digested
from penstockd.policy.digest import Count
from penstockd.store.database import Connection, Database
from penstockd.store.snapshots import Held

DEFAULT_PARTS, MAX_PARTS = 256, 4096
#: The most digests of single records in one reply.
MAX_RECORDS = 10_000
#: The most records that one reply covers; more would take too long to read.
MAX_ROWS = 2_000_000


@dataclass(frozen=True, slots=True)
class Asked:
    """A request for digests, unchecked."""

    filter: str = ""
    fields: str = ""
    start_key: str = ""
    end_key: str = ""
    parts: int = 0
    keys: bool = False
    state: str = ""

    @property
    def said(self) -> dict[str, str | int]:
        """Its conditions for the audit entry, without the state that it names."""
        return {name: value for name, value in asdict(self).items() if name != "state"}

    @property
    def most_parts(self) -> int:
        """The most ranges in one reply."""
        return 1 if self.keys else min(self.parts or DEFAULT_PARTS, MAX_PARTS)

    def check(self) -> None:
        """Raise ValueInvalid for bounds and numbers out of range."""
        check_bounds(self.start_key, self.end_key)
        if self.parts < 0:
            raise ValueInvalid.of("parts", "is negative")


@dataclass(frozen=True, slots=True)
class DigestReply:
    """Ranges in key order; the rest begins with ``next_key`` if that is not "".

    ``state`` is a token for the same state, ``cursor`` its place in the change log.
    """

    ranges: list[Range]
    next_key: str
    cursor: str
    state: str
    view: str


async def digest_parts(
    database: Database, comparison: DigestComparison, held: Held, asked: Asked
) -> tuple[RangeCutter, str]:
    """The ranges with their digests, and the key before which they end; "" if all were read.

    Raises DatabaseUnavailable and RecordUnreadable.
    """
    found, next_key = RangeCutter(asked), ""
    try:
        naming = comparison.naming_unreadable(database, held)
        async with naming, database.snapshot() as connection:
            await held.share(connection)
            found.step = await _part_size(connection, comparison, asked)
            await comparison.digest(connection, asked.start_key, asked.end_key, found.take)
    except Enough as enough:
        next_key = enough.next_key
    found.close(next_key or asked.end_key)
    return found, next_key


async def _part_size(connection: Connection, comparison: DigestComparison, asked: Asked) -> int:
    """The rows of each range, chosen to give the requested number of ranges."""
    if asked.keys:
        return MAX_RECORDS
    count = Count(comparison.view, asked.filter, MAX_ROWS).statement(bounded=bool(asked.end_key))
    bounds = {"lower": asked.start_key, "upper": asked.end_key}
    rows: int = await connection.fetchval(count.text, *count.arguments(**bounds))
    return max(1, -(-min(rows, MAX_ROWS) // asked.most_parts))


class RangeCutter:
    """Cuts rows into ranges of ``step`` each."""

    def __init__(self, asked: Asked) -> None:
        self.step = 1
        self.ranges: list[Range] = []
        self.keys: list[str] = []
        self._told, self._most = asked.keys, asked.most_parts
        self._records: dict[str, bytes] = {}
        self._patience = Patience()
        self._tally = Tally(asked.start_key)

    def take(self, done: Digested) -> None:
        """Digest the next rows. Raises Enough when the reply is full."""
        at = 0
        while at < done.rows:
            over = self._tally.count > 0 and self._patience.over
            if self._tally.count == self.step or over:
                key = key_at(done, at).decode()
                if over or len(self.ranges) + 1 == self._most:
                    raise Enough(key)
                self.close(key)
                self._tally = Tally(key)
            last = min(done.rows, at + self.step - self._tally.count)
            self._tally.add(done, at, last)
            if self._told:
                self._records |= {
                    key_at(done, i).decode(): digest_at(done, i) for i in range(at, last)
                }
            at = last

    def close(self, end: str) -> None:
        """End the current range before a key."""
        found = self._tally.range(end)
        if self._told:
            self.keys = list(self._records)
            found = Range(found.start, end, found.count, found.sha256, self._records)
        self.ranges.append(found)
