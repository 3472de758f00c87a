"""Writes records: the row, its entry in the change log and the audit entry, in one transaction.

All writes of records pass here, one or a million: rows are staged (as arrays when they are few, by
COPY to a temporary table when they are many) and one statement merges them and logs them. Bulk
loads of new rows go the shorter way of ``loading``, in the same transactions.
"""

from __future__ import annotations

import asyncio
import enum
import io
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from penstockd.catalog import Dataset, Field
from penstockd.errors import Conflict, EtagMismatch, RecordExists, RecordNotFound, Violation
from penstockd.store.database import Connection, Database
from penstockd.store.merge import Merge
from penstockd.store.rows import Defaults, unchanged
from penstockd.store.sequencer import Sequencer
from penstockd.store.sql import Statement
from penstockd.store.staging import Staged, Stager

#: Up to this many rows are staged as arrays in the merging statement itself.
SMALL_BATCH = 500
#: How often rows that another transaction inserted first are tried again, as updates.
RACES = 5


class Operation(enum.IntEnum):
    """What happened to a record, as the change log says it."""

    CREATED = 1
    UPDATED = 2
    DELETED = 3


class Mode(enum.Enum):
    """What a write expects to find."""

    CREATE = enum.auto()
    UPDATE = enum.auto()
    UPSERT = enum.auto()


class DuplicateKey(Exception):
    """Two rows of one batch or import have the same key; ``row`` is the later one's index."""

    def __init__(self, row: int, key: str) -> None:
        super().__init__(f"the key '{key}' occurs twice")
        self.row = row


@dataclass(frozen=True, slots=True)
class Guard:
    """What of a dataset a writer may touch, as the View says it.

    ``lock`` selects all columns and whether the row is visible, by ``keys``, locking the rows in
    key order; ``leaving`` counts those of ``keys`` that are not visible, None if all are.
    """

    lock: Statement
    leaving: Statement | None


@dataclass(slots=True)
class Counts:
    """How many records a write created, changed, and found to be as it wanted them."""

    created: int = 0
    updated: int = 0
    unchanged: int = 0

    @property
    def total(self) -> int:
        """All rows that were given."""
        return self.created + self.updated + self.unchanged


@dataclass(slots=True)
class WriteTransaction:
    """One transaction of writes: its time, its revision (the records' etag), its log rows."""

    connection: Connection
    time: datetime
    revision: int
    logged: int = 0
    staged: set[str] = field(default_factory=set)

    async def upsert(
        self,
        dataset: Dataset,
        fields: Sequence[Field],
        rows: Sequence[Sequence[Any]],
        guard: Guard,
        *,
        mode: Mode = Mode.UPSERT,
        etag: str | None = None,
    ) -> Counts:
        """Set ``fields`` (the key among them) of the records in ``rows`` to the values given.

        Other fields keep their values, or get defaults in a new record. A record that is already
        as wanted is not touched and not logged.

        Raises RecordExists (CREATE), RecordNotFound (UPDATE, or a record outside the View),
        EtagMismatch, DuplicateKey, and Conflict after RACES lost races for new keys.
        """
        counts = Counts()
        plan = _Plan(self, dataset, tuple(fields), mode, etag)
        plan.check_keys(rows)
        pending = [(i, row) for i, row in enumerate(rows)]
        for _ in range(RACES):
            staged = await self._stage(plan, pending, guard, counts)
            lost = await self._merge(dataset, staged, counts) if staged else set()
            if not lost:
                await self.check_leaving(guard, [row[plan.key_at] for row in rows])
                return counts
            if mode is Mode.CREATE:
                raise RecordExists(f"{dataset.singular} '{min(lost)}' exists already")
            pending = [(i, row) for i, row in pending if row[plan.key_at] in lost]
        raise Conflict("other writers keep creating the same records; repeat the call")

    async def delete(
        self, dataset: Dataset, key: str, guard: Guard, *, etag: str | None = None
    ) -> None:
        """Delete one record. Raises RecordNotFound and EtagMismatch."""
        existing = await self._lock(guard, [key])
        row = existing.get(key)
        if row is None or not row["visible"]:
            raise RecordNotFound(f"{dataset.singular} '{key}' does not exist")
        values = [row[f.path] for f in dataset.fields]
        _check_etag(dataset, key, row["etag"], etag)
        before = Stager.of(dataset).image(values)
        await self.connection.execute(
            Merge.of(dataset).delete, key, self.logged, dataset.name, int(Operation.DELETED), before
        )
        self.logged += 1

    async def _stage(
        self,
        plan: _Plan,
        pending: Sequence[tuple[int, Sequence[Any]]],
        guard: Guard,
        counts: Counts,
    ) -> Staged:
        """Lock what exists and work out the rows to merge."""
        existing = await self._lock(guard, sorted(row[plan.key_at] for _, row in pending))
        if len(pending) > SMALL_BATCH:
            return await asyncio.to_thread(plan.stage, pending, existing, counts)
        return plan.stage(pending, existing, counts)

    async def _lock(self, guard: Guard, keys: Sequence[str]) -> dict[str, Any]:
        rows = await self.connection.fetch(guard.lock.text, *guard.lock.arguments(keys=keys))
        return {row["__key"]: row for row in rows}

    async def make_stage(self, dataset: Dataset) -> None:
        """See to it that the dataset's temporary stage is there; it is empty between uses."""
        if dataset.name not in self.staged:
            await self.connection.execute(Merge.of(dataset).create_stage)
            self.staged.add(dataset.name)

    async def check_leaving(self, guard: Guard, keys: Sequence[str]) -> None:
        """No write may move a record out of what its writer may see, or it would be a leak.

        Raises RecordNotFound if one of ``keys`` is out of sight now.
        """
        if guard.leaving is None:
            return
        statement = guard.leaving
        if await self.connection.fetchval(statement.text, *statement.arguments(keys=keys)):
            raise RecordNotFound("a record would leave the rows that you may see")

    async def _merge(self, dataset: Dataset, staged: Staged, counts: Counts) -> set[str]:
        """Merge and log the staged rows; returns keys that another transaction inserted first."""
        merge = Merge.of(dataset)
        constants = (self.logged, dataset.name, int(Operation.CREATED), int(Operation.UPDATED))
        if len(staged) <= SMALL_BATCH:
            ordinals = list(range(len(staged)))
            lost = await self.connection.fetch(
                merge.from_arrays, *constants, ordinals, *staged.columns
            )
        else:
            await self.make_stage(dataset)
            text = await asyncio.to_thread(Stager.of(dataset).copy_text, staged)
            await self.connection.copy_to_table(
                merge.stage,
                source=io.BytesIO(text),
                columns=merge.stage_columns,
                schema_name="pg_temp",
                format="text",
            )
            lost = await self.connection.fetch(merge.from_stage, *constants)
            await self.connection.execute(merge.clear_stage)
        created = staged.columns[0].count(None) - len(lost)
        counts.created += created
        counts.updated += len(staged) - created - len(lost)
        self.logged += len(staged) - len(lost)
        return {row[0] for row in lost}


class _Plan:
    """How rows of some fields become full rows of a dataset."""

    def __init__(
        self,
        transaction: WriteTransaction,
        dataset: Dataset,
        fields: tuple[Field, ...],
        mode: Mode,
        etag: str | None,
    ) -> None:
        self.dataset, self.mode, self.etag = dataset, mode, etag
        self.revision, self.time = transaction.revision, transaction.time
        position = {f.path: i for i, f in enumerate(dataset.fields)}
        self.targets = [position[f.path] for f in fields]
        self.fields = fields
        self.key_at = next(i for i, f in enumerate(fields) if f.key)
        self.defaults = Defaults.of(dataset)
        self._update_at = position["update_time"]
        self._etag_at = position["etag"]

    def check_keys(self, rows: Sequence[Sequence[Any]]) -> None:
        """Raise DuplicateKey for the first row whose key an earlier row has."""
        if len({row[self.key_at] for row in rows}) == len(rows):
            return
        seen: set[str] = set()
        for i, row in enumerate(rows):
            if row[self.key_at] in seen:
                raise DuplicateKey(i, row[self.key_at])
            seen.add(row[self.key_at])

    def stage(
        self,
        pending: Sequence[tuple[int, Sequence[Any]]],
        existing: Mapping[str, Any],
        counts: Counts,
    ) -> Staged:
        """The rows to merge, given those that exist; what is as wanted is counted as unchanged."""
        stager, staged = Stager.of(self.dataset), Staged()
        new: list[Sequence[Any]] = []
        changed: list[tuple[Sequence[Any], Sequence[Any]]] = []
        for index, row in pending:
            current = existing.get(row[self.key_at])
            if current is None:
                new.append(row)
            elif (pair := self.change(index, row, current)) is not None:
                changed.append(pair)
            else:
                counts.unchanged += 1
        if new:
            if self.mode is Mode.UPDATE:
                raise RecordNotFound(
                    f"{self.dataset.singular} '{new[0][self.key_at]}' does not exist"
                )
            staged.add(stager.new(self.fields, new, self.time, self.revision))
        if changed:
            staged.add(stager.changed(changed))
        return staged

    def change(
        self, index: int, row: Sequence[Any], current: Any
    ) -> tuple[list[Any], list[Any]] | None:
        """The full row of an existing record and what it becomes; None if nothing changes."""
        key = row[self.key_at]
        if self.mode is Mode.CREATE:
            raise RecordExists(f"{self.dataset.singular} '{key}' exists already")
        if not current["visible"]:
            raise RecordNotFound(f"{self.dataset.singular} '{key}' does not exist")
        _check_etag(self.dataset, key, current["etag"], self.etag)
        if current["etag"] == self.revision:
            raise DuplicateKey(index, key)
        old = [current[i] for i in range(len(self.dataset.fields))]
        full = list(old)
        for target, value in zip(self.targets, row, strict=True):
            full[target] = self.defaults.value(target) if value is None else value
        self.defaults.complete(full)
        if all(
            unchanged(f, old[t], full[t])
            for f, t in zip(self.dataset.fields, range(len(old)), strict=True)
            if old[t] is not full[t]
        ):
            return None
        full[self._update_at], full[self._etag_at] = self.time, self.revision
        return old, full


class Writer:
    """Opens write transactions and sees to it that what they log is numbered soon."""

    def __init__(self, database: Database, sequencer: Sequencer) -> None:
        self._database = database
        self._sequencer = sequencer

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[WriteTransaction]:
        """A transaction that commits when the block ends without an error, log and all."""
        async with self._database.transaction() as connection:
            row = await connection.fetchrow("SELECT now(), nextval('hub.revision')")
            assert row is not None
            transaction = WriteTransaction(connection, row[0], row[1])
            yield transaction
            if transaction.logged:
                # Last of all, when every row lock is held: see hub.pending.
                await connection.execute(
                    "INSERT INTO hub.pending (row_count) VALUES ($1)", transaction.logged
                )
        if transaction.logged:
            self._sequencer.nudge()


def _check_etag(dataset: Dataset, key: str, current: int, wanted: str | None) -> None:
    if wanted and wanted != str(current):
        raise EtagMismatch(
            f"{dataset.singular} '{key}' changed since it was read: its etag is now '{current}'",
            violations=[Violation("etag", f"is '{current}' now")],
        )
