"""Reads the audit from the database in one snapshot and verifies it, while the hub runs."""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from collections.abc import AsyncIterator, Collection, Sequence
from typing import Any

from penstockd.audit.archive import ArchiveFolders
from penstockd.audit.chain import CONTENT, HASH_BYTES, Sealed
from penstockd.audit.checkpoint import Checkpoint, CheckpointKind
from penstockd.audit.entry import SUPPRESSED
from penstockd.audit.shown import digest_of
from penstockd.audit.stored_checkpoints import read_checkpoints
from penstockd.audit.verify import (
    MAX_FINDINGS,
    DaySpan,
    Fault,
    Finding,
    Verification,
    VerificationReport,
)
from penstockd.store.database import Connection

#: How many seconds older than the newest checkpoint an entry outside every chain may be: its
#: transaction may have been open when the sealer made its pass.
UNSEALED_SECONDS = 60.0
#: Groups of entries that are read at a time.
_GROUPS = 8

_SEALS = """
SELECT first_sequence, entry_ids, hashes FROM hub.audit_seal
WHERE day = $1 AND first_sequence > $2 ORDER BY first_sequence LIMIT $3
"""
_CONTENTS = f"""
SELECT e.entry_id, {CONTENT} FROM hub.audit_entry AS e
WHERE e.day = $1 AND e.entry_id = ANY ($2::bigint[])
"""
#: $1 is the time of the last signed pass; without one nothing is sealed yet.
_OLD = "e.entry_time < coalesce($1, '-infinity'::timestamptz)"
_OUTSIDE = f"""
SELECT e.day, e.entry_id, e.entry_time FROM hub.audit_entry AS e
LEFT JOIN (SELECT day, unnest(entry_ids) AS entry_id FROM hub.audit_seal) AS s
    ON s.day = e.day AND s.entry_id = e.entry_id
WHERE s.entry_id IS NULL AND {_OLD} ORDER BY e.entry_id LIMIT 100
"""
_OLDEST = f"""
SELECT min(e.entry_time) FROM hub.audit_entry AS e
LEFT JOIN (SELECT day, unnest(entry_ids) AS entry_id FROM hub.audit_seal) AS s
    ON s.day = e.day AND s.entry_id = e.entry_id
WHERE s.entry_id IS NULL AND NOT {_OLD}
"""
_UNEXPLAINED = """
SELECT e.day, e.entry_id FROM hub.audit_entry AS e LEFT JOIN hub.audit_shown AS s
    ON s.digest = e.shown
WHERE e.shown IS NOT NULL AND s.digest IS NULL ORDER BY e.entry_id LIMIT 100
"""
_SUPPRESSED = """
SELECT day, entry_id, request_id FROM hub.audit_entry WHERE outcome = $1 ORDER BY entry_id LIMIT $2
"""


async def verify_database(
    connection: Connection,
    keys: Collection[bytes],
    outside: Sequence[Checkpoint] = (),
    *,
    patience: float | None = 120.0,
    archives: ArchiveFolders | None = None,
) -> VerificationReport:
    """Verify the audit that the connection sees. It must be in a snapshot transaction.

    ``outside`` are the checkpoints of the file, read before the snapshot was taken. With
    ``patience``, the newest checkpoint must not be older than that many seconds. With ``archives``,
    also verify the dropped days, each of which must have its archive.
    """
    started = time.perf_counter()
    checkpoints = await read_checkpoints(connection)
    check = Verification(checkpoints, keys, outside)
    archived = await asyncio.to_thread(_check_archives, check, archives)
    stored = await _check_chains(connection, check)
    # The last by number: after the server's clock was set back, earlier ones have later times.
    last = max(
        (c for c in checkpoints if c.kind is CheckpointKind.SEAL), key=_number_of, default=None
    )
    passed = last.time - dt.timedelta(seconds=UNSEALED_SECONDS) if last is not None else None
    unsealed, oldest = await _check_outside_chains(connection, check, passed)
    await _check_rules(connection, check)
    await _check_suppressed(connection, check)
    now = await connection.fetchval("SELECT now()")
    check.close(now if patience is not None else None, patience or 0.0)
    seconds = time.perf_counter() - started
    waiting = None if oldest is None else max(0.0, (now - oldest).total_seconds())
    return check.report(unsealed, seconds, waiting, in_store=stored, archived=archived)


def _check_archives(check: Verification, archives: ArchiveFolders | None) -> DaySpan | None:
    """Check the archives of all dropped days. Returns the days and what was read; None if there are
    none."""
    if not check.pruned:
        return None
    files = 0 if archives is None else sum(archives.check(check, p) for p in check.pruned)
    days = [pruned.day for pruned in check.pruned]
    return DaySpan(min(days), max(days), check.entries, files)


async def _check_chains(connection: Connection, check: Verification) -> DaySpan | None:
    """Check the chains in the database. Returns the days and what was read; None if there are
    none."""
    before = check.entries
    chains = await connection.fetch(
        "SELECT day, anchor, last_sequence FROM hub.audit_chain ORDER BY day"
    )
    for day, anchor, length in chains:
        chain = check.day(day, anchor)
        async for entries in _read_sealed(connection, day):
            chain.feed(entries)
        chain.end(length)
    if not chains:
        return None
    return DaySpan(chains[0][0], chains[-1][0], check.entries - before)


async def _read_sealed(connection: Connection, day: dt.date) -> AsyncIterator[list[Sealed]]:
    """The entries of a day's chain, reading ahead while they are checked."""
    groups = await connection.fetch(_SEALS, day, 0, _GROUPS)
    reading = asyncio.create_task(_read_contents(connection, day, groups)) if groups else None
    try:
        while reading is not None:
            contents, following = await reading
            reading = None
            if following:
                reading = asyncio.create_task(_read_contents(connection, day, following))
                await asyncio.sleep(0)  # so that the query is sent
            yield [s for group in groups for s in _place_contents(group, contents)]
            groups = following
    finally:
        if reading is not None:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)


async def _read_contents(
    connection: Connection, day: dt.date, groups: Sequence[Any]
) -> tuple[dict[int, bytes], list[Any]]:
    """The contents of the groups' entries by id, and the groups after them."""
    ids = [i for group in groups for i in group[1]]
    contents = dict(map(tuple, await connection.fetch(_CONTENTS, day, ids)))
    return contents, await connection.fetch(_SEALS, day, groups[-1][0], _GROUPS)


def _place_contents(group: Any, contents: dict[int, bytes]) -> list[Sealed]:
    first, ids, hashes = group
    size = HASH_BYTES
    return [
        Sealed(first + at, entry_id, hashes[at * size : (at + 1) * size], contents.get(entry_id))
        for at, entry_id in enumerate(ids)
    ]


def _number_of(checkpoint: Checkpoint) -> int:
    return checkpoint.number


async def _check_outside_chains(
    connection: Connection, check: Verification, passed: dt.datetime | None
) -> tuple[int, dt.datetime | None]:
    """Find entries outside every chain that the sealer's last pass must have seen; returns the
    number of newer ones, and the time of the oldest of these.

    The newer ones may just not be sealed yet, which is not a fault: they are only counted.
    """
    old, new = await connection.fetchrow(
        f"SELECT count(*) FILTER (WHERE {_OLD}), count(*) FILTER (WHERE NOT {_OLD})"
        " FROM hub.audit_entry AS e",
        passed,
    ) or (0, 0)
    sealed = await connection.fetchval(
        "SELECT coalesce(sum(last_sequence), 0) FROM hub.audit_chain"
    )
    if old:
        for day, entry_id, at in await connection.fetch(_OUTSIDE, passed):
            words = f"an entry of {at:%H:%M:%S} is in no chain"
            check.find(Finding(Fault.INSERTED, words, day, 0, entry_id))
    count = max(0, int(old + new - sealed))
    return count, await connection.fetchval(_OLDEST, passed) if count else None


async def _check_suppressed(connection: Connection, check: Verification) -> None:
    """Report entries that stand for others that the database did not keep."""
    rows = await connection.fetch(_SUPPRESSED, SUPPRESSED, MAX_FINDINGS)
    for day, entry_id, request_id in rows:
        words = f"an entry of the call {request_id} was not kept by the database"
        check.find(Finding(Fault.SUPPRESSED, words, day, 0, entry_id))


async def _check_rules(connection: Connection, check: Verification) -> None:
    """Check that every digest in an entry has content, and that each content has its digest."""
    for digest, content in await connection.fetch("SELECT digest, content FROM hub.audit_shown"):
        if digest_of(content) != digest:
            words = f"what {digest.hex()}stands for was changed"
            check.find(Finding(Fault.RULE_CHANGED, words))
    for day, entry_id in await connection.fetch(_UNEXPLAINED):
        words = "the rule that it names is missing"
        check.find(Finding(Fault.RULE_CHANGED, words, day, 0, entry_id))
