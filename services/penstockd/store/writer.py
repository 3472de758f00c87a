"""Writes records: the row, its entry in the change log and the audit entry, in one transaction.

All writes of records pass through here, one or a million: rows are staged (as arrays if few, by
COPY to a temporary table if many) and one statement merges and logs them. Bulk loads of new rows
take the shorter way of ``loading``, in the same transactions.
"""

from __future__ import annotations

import enum
import io
import secrets
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ParamSpec, TypeVar

import asyncpg

from penstockd.budget import LITTLE, run_offloaded
from penstockd.catalog import Dataset, Field
from penstockd.errors import (
    Conflict,
    RecordExists,
    RecordNotFound,
    RecordUnreadable,
    Violation,
)
from penstockd.store.database import Connection, Database, WorkKind
from penstockd.store.indexes import declared_indexes
from penstockd.store.merge import Merge
from penstockd.store.sequencer import Sequencer
from penstockd.store.sql import Statement
from penstockd.store.staging import Staged, Stager
from penstockd.store.uniqueness import (
    TAKEN,
    Unread,
    UnseenValues,
    refuse_shared_values,
    settle_values,
    staged_keys,
    unique_fields,
    value_taken,
)
from penstockd.store.upsert import (
    LEAVES,
    Counts,
    DuplicateKey,
    Mode,
    Refusals,
    UpsertPlan,
    check_etag,
)

__all__ = [
    "Counts",
    "DuplicateKey",
    "Guard",
    "Mode",
    "Operation",
    "Refusals",
    "WriteTransaction",
    "Writer",
]

P = ParamSpec("P")
T = TypeVar("T")

#: Draws the revision of a transaction and sets it for the log, whose rows carry the revision.
BEGIN_REVISION = """
SELECT now(), set_config('penstock.revision', nextval('hub.revision')::text, true)
"""
#: Random bits of an etag, which has 15 digits: a record hardly ever gets the same one twice.
ETAG_BITS = 47
#: Up to this many rows are staged as arrays in the merging statement itself.
SMALL_BATCH = 500
#: An existing row that its writer may not touch.
HIDDEN: Mapping[str, Any] = {"~visible": False}
#: How often rows that another transaction inserted first are retried as updates.
RACES = 5


class Operation(enum.IntEnum):
    """What happened to a record, as the change log stores it."""

    CREATED = 1
    UPDATED = 2
    DELETED = 3


@dataclass(frozen=True, slots=True)
class Guard:
    """The rows of a dataset that a writer may touch, from the View.

    ``lock`` selects all columns of the visible rows among ``keys``, locking them in key order: a
    writer locks no row that it may not touch. ``leaving`` selects those of ``keys`` that are not
    visible, or is None if all rows are; ``extreme`` selects one of the visible keys whose row no
    program can fetch. ``unread`` is what the writer may not read, whatever it may touch.
    """

    dataset: str
    lock: Statement
    leaving: Statement | None
    extreme: Statement
    unread: Unread


def draw_etag() -> int:
    """A new etag. It is random: readers see it, and a number that counts would reveal how much
    everybody writes."""
    return (1 << ETAG_BITS) + secrets.randbits(ETAG_BITS)


@dataclass(frozen=True, slots=True)
class Stamp:
    """The time and the etag that new records carry."""

    time: datetime
    etag: int = field(default_factory=draw_etag)


@dataclass(slots=True)
class WriteTransaction:
    """One transaction of writes: its time, the etag of all records that it writes, and the number
    of its log rows."""

    connection: Connection
    time: datetime
    logged: int = 0
    etag: int = field(default_factory=draw_etag)
    staged: set[str] = field(default_factory=set)
    unseen: UnseenValues = field(default_factory=UnseenValues)

    async def upsert(
        self,
        dataset: Dataset,
        fields: Sequence[Field],
        rows: Sequence[Sequence[Any]],
        guard: Guard,
        *,
        mode: Mode = Mode.UPSERT,
        etags: Collection[str] = (),
        lacking: Sequence[Violation] = (),
        refused: Refusals | None = None,
    ) -> Counts:
        """Set ``fields`` (including the key) of records to the values in ``rows``.

        Other fields keep their values, or get defaults in a new record; ``lacking`` are the faults
        of those defaults. A record that would not change is neither touched nor logged.

        Raises RecordExists (CREATE), RecordNotFound (UPDATE, or a record outside the View),
        EtagMismatch, DuplicateKey, ValueTaken, ValueInvalid (``lacking``, of a new record), and
        Conflict after RACES lost races for new keys. With ``refused``, faulty rows are left out and
        noted there instead; Conflict is still raised, and ValueTaken if more than MOST_UNSEEN
        values are taken by records that the writer may not read.
        """
        plan = UpsertPlan(self.time, self.etag, dataset, tuple(fields), mode, etags, lacking)
        if refused is None:
            await _work_through(rows, plan.check_keys, rows)
            pending: Sequence[tuple[int, Sequence[Any]]] = list(enumerate(rows))
        else:
            pending = await _work_through(rows, plan.first_of_each, rows, refused)
        if len(rows) > 1 and unique_fields(dataset):
            pending = await _work_through(
                rows, refuse_shared_values, dataset, plan.fields, pending, refused
            )
        if refused is None or guard.leaving is None:
            return await self._upsert(plan, pending, guard, refused)
        return await self._upsert_staying(plan, pending, guard, refused)

    async def _upsert(
        self,
        plan: UpsertPlan,
        pending: Sequence[tuple[int, Sequence[Any]]],
        guard: Guard,
        refused: Refusals | None,
    ) -> Counts:
        counts, keys = Counts(), [plan.key_of(row) for _, row in pending]
        for _ in range(RACES):
            staged = await self._stage(plan, pending, guard, counts, refused)
            if staged and unique_fields(plan.dataset):
                staged = await self._without_taken(plan, pending, staged, guard, refused)
            lost = await self._merge(plan.dataset, staged, counts) if staged else set()
            if not lost:
                if refused is None:
                    await self.check_leaving(guard, keys)
                return counts
            if plan.mode is Mode.CREATE:
                raise RecordExists(f"{plan.dataset.singular} '{min(lost)}' exists already")
            pending = [(i, row) for i, row in pending if plan.key_of(row) in lost]
        raise Conflict("other writers keep creating the same records; repeat the call")

    async def _upsert_staying(
        self,
        plan: UpsertPlan,
        pending: Sequence[tuple[int, Sequence[Any]]],
        guard: Guard,
        refused: Refusals,
    ) -> Counts:
        """Upsert without the rows that would leave the View. Only writing shows which do: then
        everything is undone and done again without them.

        Leaving one row out may make another leave, along a chain of references. Raises Conflict
        after RACES attempts.
        """
        logged, unseen = self.logged, self.unseen.count
        if len(pending) > SMALL_BATCH:
            await self.make_stage(plan.dataset)  # a rollback to the savepoint would drop it
        for _ in range(RACES):
            this_time = Refusals()
            savepoint = self.connection.transaction()
            await savepoint.start()
            counts = await self._upsert(plan, pending, guard, this_time)
            passed = this_time.indexes
            keys = [plan.key_of(row) for i, row in pending if i not in passed]
            leaving = await self._leaving(guard, keys)
            if not leaving:
                await savepoint.commit()
                refused.take(this_time)
                return counts
            await savepoint.rollback()
            self.logged, self.unseen.count = logged, unseen
            for i, row in pending:
                if plan.key_of(row) in leaving and i not in passed:
                    refused.add(i, "", LEAVES)
            pending = [(i, row) for i, row in pending if i not in refused.indexes]
        raise Conflict("the visibility of these rows depends on each other; write fewer at once")

    async def delete(
        self, dataset: Dataset, key: str, guard: Guard, *, etags: Collection[str] = ()
    ) -> None:
        """Delete one record. Raises RecordNotFound and EtagMismatch."""
        existing = await self._lock(guard, [key])
        row = existing.get(key)
        if row is None or not row["~visible"]:
            raise RecordNotFound(f"{dataset.singular} '{key}' does not exist")
        values = [row[i] for i in range(len(dataset.fields))]
        check_etag(dataset, key, row["etag"], etags)
        before = Stager.of(dataset).image(values)
        await self.connection.execute(
            Merge.of(dataset).delete, key, self.logged, dataset.name, int(Operation.DELETED), before
        )
        self.logged += 1

    async def lock(self, guard: Guard, key: str) -> bool:
        """Lock a record until the transaction ends; returns whether the writer sees it."""
        row = (await self._lock(guard, [key])).get(key)
        return row is not None and bool(row["~visible"])

    async def _stage(
        self,
        plan: UpsertPlan,
        pending: Sequence[tuple[int, Sequence[Any]]],
        guard: Guard,
        counts: Counts,
        refused: Refusals | None,
    ) -> Staged:
        """Lock the existing rows and compute the rows to merge."""
        existing = await self._lock(guard, sorted(plan.key_of(row) for _, row in pending))
        return await _work_through(pending, plan.stage, pending, existing, counts, refused)

    async def _without_taken(
        self,
        plan: UpsertPlan,
        pending: Sequence[tuple[int, Sequence[Any]]],
        staged: Staged,
        guard: Guard,
        refused: Refusals | None,
    ) -> Staged:
        """Refuse the staged rows whose unique values other records keep; ValueTaken without
        ``refused``."""
        taken = await settle_values(
            self.connection, plan.dataset, plan.fields, staged, guard.unread, self.unseen
        )
        if not taken:
            return staged
        if refused is None:
            raise value_taken(plan.dataset, taken[min(taken)])
        indexes = {plan.key_of(row): index for index, row in pending}
        keys = staged_keys(plan.dataset, staged)
        for at, fields in taken.items():
            for one in fields:
                refused.add(indexes[keys[at]], one.path, TAKEN)
        columns = [[v for i, v in enumerate(c) if i not in taken] for c in staged.columns]
        return Staged(columns)

    async def _lock(self, guard: Guard, keys: Sequence[str]) -> dict[str, Any]:
        """The existing rows among ``keys``: those that the writer may touch, locked and whole, and
        HIDDEN for each of the others. Raises RecordUnreadable."""
        try:
            rows = await self.connection.fetch(guard.lock.text, *guard.lock.arguments(keys=keys))
        except (ValueError, OverflowError) as exc:
            extreme = guard.extreme
            key = await self.connection.fetchval(extreme.text, *extreme.arguments(keys=keys))
            if key is None:
                raise
            # Which field it is, and what it holds, may be hidden from the writer.
            raise RecordUnreadable(guard.dataset, key, "", "") from exc
        found: dict[str, Any] = {row["~key"]: row for row in rows}
        missing = [key for key in keys if key not in found]
        if missing:
            found |= dict.fromkeys(await self._leaving(guard, missing), HIDDEN)
        return found

    async def make_stage(self, dataset: Dataset) -> None:
        """Create the dataset's temporary stage if needed; it is empty between uses."""
        if dataset.name not in self.staged:
            await self.connection.execute(Merge.of(dataset).create_stage)
            self.staged.add(dataset.name)

    async def check_leaving(self, guard: Guard, keys: Sequence[str]) -> None:
        """Check that no write moved a record out of its writer's sight, which would be a leak.

        Raises RecordNotFound if one of ``keys`` is out of sight now.
        """
        if await self._leaving(guard, keys):
            raise RecordNotFound(f"a record {LEAVES}")

    async def _leaving(self, guard: Guard, keys: Sequence[str]) -> set[str]:
        if guard.leaving is None:
            return set()
        statement = guard.leaving
        found = await self.connection.fetch(statement.text, *statement.arguments(keys=keys))
        return {row[0] for row in found}

    async def _merge(self, dataset: Dataset, staged: Staged, counts: Counts) -> set[str]:
        """Merge and log the staged rows; returns keys that another transaction inserted first.

        Raises ValueTaken if another transaction has just taken a value.
        """
        try:
            lost = await self._run_merge(dataset, staged)
        except asyncpg.UniqueViolationError as exc:
            index = declared_indexes(dataset).get(exc.constraint_name or "")
            # A dry write does not reveal other records' values.
            if index is None or self.unseen.dry:
                raise
            raise value_taken(dataset, [index.field]) from exc
        created = staged.columns[0].count(None) - len(lost)
        counts.created += created
        counts.updated += len(staged) - created - len(lost)
        self.logged += len(staged) - len(lost)
        return lost

    async def _run_merge(self, dataset: Dataset, staged: Staged) -> set[str]:
        merge = Merge.of(dataset)
        constants = (self.logged, dataset.name, int(Operation.CREATED), int(Operation.UPDATED))
        if len(staged) <= SMALL_BATCH:
            ordinals = list(range(len(staged)))
            lost = await self.connection.fetch(
                merge.from_arrays, *constants, ordinals, *staged.columns
            )
        else:
            await self.make_stage(dataset)
            text = await run_offloaded(Stager.of(dataset).copy_text, staged)
            await self.connection.copy_to_table(
                merge.stage,
                source=io.BytesIO(text),
                columns=merge.stage_columns,
                schema_name="pg_temp",
                format="text",
            )
            lost = await self.connection.fetch(merge.from_stage, *constants)
            await self.connection.execute(merge.clear_stage)
        return {row[0] for row in lost}


async def _work_through(
    rows: Sequence[Any], work: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> T:
    """Run ``work``, which iterates over ``rows``: in a thread unless they are few and small."""
    if len(rows) <= SMALL_BATCH and _text_size(rows) <= LITTLE:
        return work(*args, **kwargs)
    return await run_offloaded(work, *args, **kwargs)


def _text_size(rows: Sequence[Any]) -> int:
    """The approximate size of the texts in some rows, which dominate the work."""
    return sum(
        len(value)
        for row in rows
        for value in (row[1] if isinstance(row, tuple) else row)
        if isinstance(value, str)
    )


class Writer:
    """Opens write transactions and has their log rows numbered soon."""

    def __init__(self, database: Database, sequencer: Sequencer) -> None:
        self._database = database
        self._sequencer = sequencer

    @asynccontextmanager
    async def transaction(
        self,
        *,
        dry: bool = False,
        bulk: bool = False,
        note_unseen: Callable[[int], None] | None = None,
    ) -> AsyncIterator[WriteTransaction]:
        """A transaction that commits, with its log rows, when the block ends without an error.

        A ``dry`` one is rolled back at the end. Use ``bulk`` for one that takes as long as its
        client. ``note_unseen`` is called with the number so far of values that belong to records
        which the writer may not read.
        """
        async with self._database.transaction(dry=dry, bulk=bulk) as connection:
            transaction = await self._begin_log(connection, UnseenValues(dry, note_unseen))
            yield transaction
            if transaction.logged and not dry:
                # Last, when every row lock is held: see hub.pending.
                await connection.execute(
                    "INSERT INTO hub.pending (row_count) VALUES ($1)", transaction.logged
                )
        if transaction.logged and not dry:
            self._sequencer.nudge()

    async def _begin_log(self, connection: Connection, unseen: UnseenValues) -> WriteTransaction:
        row = await connection.fetchrow(BEGIN_REVISION)
        assert row is not None
        return WriteTransaction(connection, row[0], unseen=unseen)

    async def stamp(self) -> Stamp:
        """A stamp for records that are made before their transaction begins, so that it does not
        hold a connection meanwhile. Their time is the database's, slightly before the
        transaction's."""
        async with self._database.connection(WorkKind.WRITE) as connection:
            return Stamp(await connection.fetchval("SELECT now()"))

    async def close(self) -> None:
        """Wait until committed changes are numbered."""
        await self._sequencer.close()
