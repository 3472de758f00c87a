"""Bulk loads: rows that are new go straight into their table and the change log by COPY.

That costs the database half as much as staging and merging. Rows that already exist are staged and
compared there; the few that differ, or that another transaction inserted first, go through
``WriteTransaction.upsert``.

COPY cannot skip a key that another writer has just inserted, so each batch of new rows has a
savepoint; the load rolls back to it and writes that batch the other way.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import asyncpg

from penstockd.budget import offload_large, run_offloaded
from penstockd.catalog import Dataset, Field
from penstockd.catalog.keys import key_reader
from penstockd.errors import Violation
from penstockd.store.fresh import ENTRY_COLUMNS, FreshRows
from penstockd.store.merge import Merge, unchanged_sql
from penstockd.store.rows import stored_row
from penstockd.store.tables import DATA_SCHEMA, HUB_SCHEMA
from penstockd.store.writer import Counts, DuplicateKey, Guard, Refusals, WriteTransaction

_HEAD = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TAIL = b"\xff\xff"
_ROW_BYTES = 64  # a row's assumed size where only its key is read
_CHUNK = 256 << 10  # bytes per message to the database


class Load:
    """One batch of a bulk load, equivalent to an upsert of its rows.

    ``lacking`` and ``refused`` are those of ``WriteTransaction.upsert``; rows are refused by their
    row numbers. Fresh rows lack nothing.
    """

    def __init__(
        self,
        transaction: WriteTransaction,
        dataset: Dataset,
        fields: Sequence[Field],
        guard: Guard,
        *,
        lacking: Sequence[Violation] = (),
        refused: Refusals | None = None,
    ) -> None:
        self._lacking, self._refused = lacking, refused
        self._transaction, self._dataset, self._guard = transaction, dataset, guard
        self._fields = tuple(fields)
        self._merge = Merge.of(dataset)
        self._key_of = key_reader(dataset, fields)

    async def run(
        self, fresh: FreshRows, numbers: Sequence[int], rows: Sequence[Sequence[Any]]
    ) -> Counts:
        """Write ``fresh`` and the ``rows`` that have these ``numbers`` in the file.

        Raises what ``WriteTransaction.upsert`` raises; ``DuplicateKey.row`` is the number of the
        later row.
        """
        counts, keys = Counts(), fresh.keys
        try:
            size = _ROW_BYTES * (len(fresh) + len(rows))
            added = [self._key_of(row) for row in rows]
            await offload_large(size, _check_keys, fresh, numbers, added)
        except DuplicateKey:
            if self._refused is None:
                raise
            await self._one_by_one(fresh, numbers, rows, counts)
            return counts
        if self._refused is not None and self._guard.leaving is not None:
            await self._one_by_one(fresh, numbers, rows, counts)
            return counts
        if not keys:
            await self._upsert(numbers, rows, counts)
            return counts
        ascending = sorted(keys)
        found = await self._transaction.connection.fetch(self._merge.present, ascending)
        there = {row[0] for row in found}
        again: list[int] = []
        if there:
            # Lock before the inserts, as in an upsert, or two writers could deadlock.
            again = await self._changed(fresh, there, counts)
        new: Sequence[int] = range(len(keys))
        if there:
            new = [i for i in new if keys[i] not in there]
        if new and not await self.insert_rows(fresh, new, in_order=ascending == keys):
            again, new = sorted([*again, *new]), []
        if new:
            await self.log_rows(fresh, new)
            counts.created += len(new)
        if again or rows:
            again_rows = await run_offloaded(self._decoded, fresh, again)
            await self._upsert(
                [*(fresh.numbers[i] for i in again), *numbers], [*again_rows, *rows], counts
            )
        return counts

    async def _changed(self, fresh: FreshRows, there: set[str], counts: Counts) -> list[int]:
        """Lock the rows that exist; returns the places of those that may have changed."""
        places = [i for i, key in enumerate(fresh.keys) if key in there]
        await self._transaction.make_stage(self._dataset)
        await self._copy(self._merge.stage, "pg_temp", self._merge.columns, fresh.rows_at(places))
        lock = self._guard.lock
        found = await self._transaction.connection.fetch(
            unchanged_sql(self._dataset, self._fields, lock.text),
            *lock.arguments(keys=sorted(there)),
        )
        await self._transaction.connection.execute(self._merge.clear_stage)
        same = {row[0] for row in found}
        counts.unchanged += len(same)
        return [i for i in places if fresh.keys[i] not in same]

    async def insert_rows(self, fresh: FreshRows, places: Sequence[int], *, in_order: bool) -> bool:
        """Insert new rows; returns False and inserts none if another writer was first with one.

        In key order, so that two loads of the same keys wait for each other without deadlock.
        """
        if not in_order:
            places = sorted(places, key=fresh.keys.__getitem__)
        data = fresh.rows_at(places)
        try:
            async with self._transaction.connection.transaction():  # a savepoint
                await self._copy(self._dataset.name, DATA_SCHEMA, self._merge.columns, data)
        except asyncpg.UniqueViolationError:
            return False
        await self._transaction.check_leaving(self._guard, [fresh.keys[i] for i in places])
        return True

    async def log_rows(self, fresh: FreshRows, places: Sequence[int]) -> None:
        """Write the log entries of rows that were inserted."""
        entries = fresh.entries_at(places, self._transaction.logged)
        await self._copy("change", HUB_SCHEMA, ENTRY_COLUMNS, entries)
        self._transaction.logged += len(places)

    async def _copy(
        self, table: str, schema: str, columns: Sequence[str], rows: bytes | bytearray
    ) -> None:
        async def stream() -> AsyncIterator[bytes]:
            yield _HEAD
            view = memoryview(rows)
            for at in range(0, len(rows), _CHUNK):
                yield bytes(view[at : at + _CHUNK])
            yield _TAIL

        await self._transaction.connection.copy_to_table(
            table, schema_name=schema, columns=list(columns), source=stream(), format="binary"
        )

    def _decoded(self, fresh: FreshRows, places: Sequence[int]) -> list[list[Any]]:
        return [stored_row(self._fields, row) for row in fresh.decode(places)]

    async def _one_by_one(
        self,
        fresh: FreshRows,
        numbers: Sequence[int],
        rows: Sequence[Sequence[Any]],
        counts: Counts,
    ) -> None:
        """Write everything by upsert, which can determine the rows to refuse."""
        together = await run_offloaded(self._in_order, fresh, numbers, rows)
        await self._upsert(*together, counts)

    def _in_order(
        self, fresh: FreshRows, numbers: Sequence[int], rows: Sequence[Sequence[Any]]
    ) -> tuple[list[int], list[Sequence[Any]]]:
        """All rows with their numbers, in file order: of two with one key the first is written."""
        decoded = self._decoded(fresh, range(len(fresh)))
        together = [*zip(fresh.numbers, decoded, strict=True), *zip(numbers, rows, strict=True)]
        together.sort(key=lambda pair: pair[0])
        return [n for n, _ in together], [row for _, row in together]

    async def _upsert(
        self, numbers: Sequence[int], rows: Sequence[Sequence[Any]], counts: Counts
    ) -> None:
        refused = None if self._refused is None else Refusals()
        try:
            more = await self._transaction.upsert(
                self._dataset,
                self._fields,
                rows,
                self._guard,
                lacking=self._lacking,
                refused=refused,
            )
        except DuplicateKey as exc:
            exc.row = numbers[exc.row]
            raise
        if refused is not None and self._refused is not None:
            await run_offloaded(self._refused.take, refused, numbers)
        counts.created += more.created
        counts.updated += more.updated
        counts.unchanged += more.unchanged


def _check_keys(fresh: FreshRows, numbers: Sequence[int], keys: Sequence[str]) -> None:
    """Raise DuplicateKey for the first row in the file that repeats an earlier row's key."""
    if len({*fresh.keys, *keys}) == len(fresh) + len(keys):
        return
    seen: set[str] = set()
    for number, key in sorted(zip([*fresh.numbers, *numbers], [*fresh.keys, *keys], strict=True)):
        if key in seen:
            raise DuplicateKey(number, key)
        seen.add(key)
