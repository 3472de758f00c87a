"""Finds what a caller must write and delete so that its copy equals one state of the records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from google.protobuf.message import Message

from penstockd.budget import let_others_run
from penstockd.digests.comparison import DigestComparison, check_bounds
from penstockd.digests.differences import Differences, group_ranges
from penstockd.digests.ranges import Enough, Range
from penstockd.errors import RequestTooLarge, ValueInvalid
from penstockd.policy.rendering import record_of
from penstockd.store.database import Database
from penstockd.store.snapshots import Held

#: The most ranges in one request.
MAX_RANGES = 4096
#: The most bytes of records in one reply, which may exceed them by one record.
RECORDS_BYTES = 2 << 20
#: Records of one fetch.
_BATCH = 256


@dataclass(frozen=True, slots=True)
class Repair:
    """A request for a repair: the caller's ranges and the subject of the comparison."""

    ranges: Sequence[Range]
    filter: str = ""
    fields: str = ""
    state: str = ""


@dataclass(frozen=True, slots=True)
class Repaired:
    """The differences before ``next_key``, "" if all was compared; ``keys`` are those of
    ``upserts``, and ``rows`` is the number of records read."""

    upserts: list[Message]
    keys: list[str]
    deletes: list[str]
    differing: list[Range]
    next_key: str
    rows: int

    @property
    def complete(self) -> bool:
        """Whether everything was compared."""
        return not self.differing and not self.next_key


@dataclass(frozen=True, slots=True)
class RepairReply:
    """The result for one state: ``state`` is a token for it, ``cursor`` its place in the change
    log, and ``view`` the id of the caller's view."""

    found: Repaired
    cursor: str
    state: str
    view: str


async def find_repair(
    database: Database, comparison: DigestComparison, held: Held, ranges: Sequence[Range]
) -> Repaired:
    """Compare a caller's ranges with the records of a held state.

    It ends early when a reply is full. Raises DatabaseUnavailable.
    """
    found = Differences()
    next_key = await _compare_ranges(database, comparison, held, ranges, found)
    records, next_key = await _read_records(database, comparison, held, found.upserts, next_key)
    deletes = [k for k in found.deletes if not next_key or k < next_key]
    differing = [r for r in found.differing if not next_key or r.start < next_key]
    keys = found.upserts[: len(records)]
    return Repaired(records, keys, deletes, differing, next_key, found.rows)


async def _compare_ranges(
    database: Database,
    comparison: DigestComparison,
    held: Held,
    ranges: Sequence[Range],
    found: Differences,
) -> str:
    """Compare the ranges; returns the key before which it ended, "" if all were compared."""
    try:
        naming = comparison.naming_unreadable(database, held)
        async with naming, database.snapshot() as connection:
            await held.share(connection)
            for i, run in enumerate(group_ranges(ranges)):
                if i and found.full:
                    return run[0].start
                found.begin(run)
                await comparison.digest(connection, run[0].start, run[-1].end, found.take)
                found.end()
    except Enough as enough:
        found.cut(enough.next_key)
        return enough.next_key
    return ""


async def _read_records(
    database: Database, comparison: DigestComparison, held: Held, keys: Sequence[str], next_key: str
) -> tuple[list[Message], str]:
    """The records with the keys, as many as fit a reply, and the key before which it ends."""
    several, size = comparison.several(), 0
    records: list[Message] = []
    async with database.snapshot() as connection:
        await held.share(connection)
        for at in range(0, len(keys), _BATCH):
            batch = list(keys[at : at + _BATCH])
            statement = several.statement
            rows = await connection.fetch(statement.text, *statement.arguments(keys=batch))
            assert len(rows) == len(batch), "what was digested is there, being the same state"
            for key, row in zip(batch, rows, strict=True):
                if size >= RECORDS_BYTES:
                    return records, key
                records.append(await record_of(several.codec, tuple(row)))
                size += records[-1].ByteSize()
                await let_others_run()
    return records, next_key


def check_ranges(ranges: Sequence[Range]) -> None:
    """Raise ValueInvalid and RequestTooLarge for impossible ranges."""
    if not ranges:
        raise ValueInvalid.of(
            "ranges", "is empty: send at least one range, which may hold no records"
        )
    if len(ranges) > MAX_RANGES:
        raise RequestTooLarge(f"more than {MAX_RANGES:,} ranges; compare them in several calls")
    before: Range | None = None
    for i, range in enumerate(ranges):
        where = f"ranges[{i}]."
        check_bounds(range.start, range.end, where)
        if before is not None and (not before.end or range.start < before.end):
            raise ValueInvalid.of(f"{where}start_key", "is before the end of the range before")
        if range.records is not None:
            _check_records(range, where)
        before = range


def _check_records(range: Range, where: str) -> None:
    keys = list(range.records or ())
    if len(keys) != range.count:
        raise ValueInvalid.of(
            f"{where}row_count", "is not the number of records, each with its own key"
        )
    if keys != sorted(keys):
        raise ValueInvalid.of(f"{where}records", "are not in order of their keys")
    if keys and (keys[0] < range.start or (range.end and keys[-1] >= range.end)):
        raise ValueInvalid.of(f"{where}records", "are not all in the range")
