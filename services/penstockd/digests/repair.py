"""Repair: what a caller is to write and to delete so that it holds what there is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from google.protobuf.message import Message

from penstockd.audit.given import given_records
from penstockd.budget import breathe
from penstockd.calls import Call
from penstockd.catalog import Dataset
from penstockd.digests.comparison import Comparison, check_bounds, refused
from penstockd.digests.differences import Differences, runs
from penstockd.digests.ranges import Enough, Range
from penstockd.digests.state import held_state
from penstockd.errors import RequestTooLarge
from penstockd.hub import Hub
from penstockd.policy.rendering import record_of
from penstockd.store.snapshots import Held

#: Ranges in one request.
MAX_RANGES = 4096
#: Bytes of records in one reply; it may hold one record more.
RECORDS_BYTES = 2 << 20
#: Records that are fetched at once.
_BATCH = 256


@dataclass(frozen=True, slots=True)
class Repair:
    """What a caller holds, as it tells it, and what of it is to be compared."""

    ranges: Sequence[Range]
    filter: str = ""
    fields: str = ""
    state: str = ""


@dataclass(frozen=True, slots=True)
class RepairReply:
    """What differs before ``next_key``; "" if all was compared."""

    upserts: list[Message]
    deletes: list[str]
    differing: list[Range]
    next_key: str
    rows: int
    cursor: str
    state: str
    view: str

    @property
    def complete(self) -> bool:
        """Whether nothing is left of what was asked."""
        return not self.differing and not self.next_key


async def repair_records(hub: Hub, call: Call, dataset: Dataset, repair: Repair) -> RepairReply:
    """Compare the caller's ranges with the records of one state.

    Raises PermissionDenied, FieldUnknown, FilterInvalid, ValueInvalid, RequestTooLarge, StateGone.
    """
    comparison = Comparison.of(hub, call, dataset, repair.filter, repair.fields)
    call.asked(filter=repair.filter, fields=repair.fields, ranges=len(repair.ranges))
    _check(repair.ranges)
    found = Differences()
    async with held_state(hub, call, repair.state) as (held, state):
        next_key = await _compare(hub, comparison, held, repair.ranges, found)
        records, next_key = await _records(hub, comparison, held, found.upserts, next_key)
        cursor = str(held.cursor)
    deletes = [k for k in found.deletes if not next_key or k < next_key]
    differing = [r for r in found.differing if not next_key or r.start < next_key]
    view, upserts = comparison.view, found.upserts[: len(records)]
    rule = call.rule(hub, view, repair.fields)
    call.disclose(given_records(view.dataset.name, rule, upserts))
    # The keys at which ranges begin are shown, too; of their records nothing is.
    rule = call.rule(hub, view, view.dataset.key.path)
    starts = [r.start for r in differing if r.start]
    await call.disclose_part(hub, given_records(view.dataset.name, rule, starts))
    return RepairReply(
        *(records, deletes, differing, next_key, found.rows, cursor, state, comparison.view_id)
    )


async def _compare(
    hub: Hub, comparison: Comparison, held: Held, ranges: Sequence[Range], found: Differences
) -> str:
    """Compare the ranges; returns the key before which it ended, "" if all were compared."""
    try:
        async with hub.database.snapshot() as connection:
            await held.share(connection)
            for i, run in enumerate(runs(ranges)):
                if i and found.full:
                    return run[0].start
                found.begin(run)
                await comparison.digest(connection, run[0].start, run[-1].end, found.take)
                found.end()
    except Enough as enough:
        found.cut(enough.next_key)
        return enough.next_key
    return ""


async def _records(
    hub: Hub, comparison: Comparison, held: Held, keys: Sequence[str], next_key: str
) -> tuple[list[Message], str]:
    """The records with the keys, as many as a reply takes, and the key before which it ends."""
    several, size = comparison.several(), 0
    records: list[Message] = []
    async with hub.database.snapshot() as connection:
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
                await breathe()
    return records, next_key


def _check(ranges: Sequence[Range]) -> None:
    """Raise ValueInvalid and RequestTooLarge for what no caller can hold."""
    if not ranges:
        raise refused("ranges", "is empty: tell what you hold, if only one range of no records")
    if len(ranges) > MAX_RANGES:
        raise RequestTooLarge(f"more than {MAX_RANGES:,} ranges; compare them in several calls")
    before: Range | None = None
    for i, range in enumerate(ranges):
        where = f"ranges[{i}]."
        check_bounds(range.start, range.end, where)
        if before is not None and (not before.end or range.start < before.end):
            raise refused(f"{where}start_key", "is before the end of the range before")
        if range.records is not None:
            _check_records(range, where)
        before = range


def _check_records(range: Range, where: str) -> None:
    keys = list(range.records or ())
    if len(keys) != range.count:
        raise refused(f"{where}row_count", "is not the number of records, each with its own key")
    if keys != sorted(keys):
        raise refused(f"{where}records", "are not in order of their keys")
    if keys and (keys[0] < range.start or (range.end and keys[-1] >= range.end)):
        raise refused(f"{where}records", "are not all in the range")
