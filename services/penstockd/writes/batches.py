"""Batches: records of one call, turned into rows and loaded, all of them or the valid ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from google.protobuf.message import Message

from penstockd import budget
from penstockd.budget import run_offloaded
from penstockd.catalog.keys import message_key
from penstockd.catalog.leniency import STRICT, Leniency
from penstockd.catalog.rules import RowRules
from penstockd.errors import ValueInvalid, Violation
from penstockd.native.records import RecordReader
from penstockd.policy.view import View
from penstockd.store.fresh import FreshRows
from penstockd.store.loading import Load
from penstockd.store.rows import stored_row
from penstockd.store.upsert import MAX_RECORD_BYTES
from penstockd.store.writer import (
    Counts,
    DuplicateKey,
    Refusals,
    Stamp,
    Writer,
    WriteTransaction,
)
from penstockd.writes.incoming import Incoming, find_lacking, refuse_values
from penstockd.writes.report import Report, RowProblem

#: Up to this many records are not worth the kernel's plan.
SMALL_BATCH = 100
#: A batch with a record of more bytes does not go through it: the writer looks at large records.
LARGE_RECORD = MAX_RECORD_BYTES // 2


class WriteBatch:
    """The records of one call, on their way into the store."""

    def __init__(
        self,
        view: View,
        records: Sequence[Message],
        *,
        partial: bool,
        leniency: Leniency = STRICT,
    ) -> None:
        self._view, self._records, self._partial = view, records, partial
        self._incoming = Incoming(view, view.writable, leniency)
        self._bad: dict[int, list[Violation]] = {}
        self._fresh = FreshRows()
        self._numbers: list[int] = []
        self._rows: list[list[Any]] = []
        self._etag: int | None = None

    async def prepare(self, writer: Writer) -> None:
        """Make rows from the records, before a transaction holds a connection. ``write`` reports
        their faults."""
        left: Sequence[int] = range(len(self._records))
        if len(left) > SMALL_BATCH and not self._any_large():
            stamp = await writer.stamp()
            self._fresh, left = await run_offloaded(self._made_natively, stamp)
            self._etag = stamp.etag
        self._numbers, self._rows = await run_offloaded(self._make_rows, left)

    async def write(self, transaction: WriteTransaction) -> Report:
        """Write the prepared rows. Raises ValueInvalid and RecordNotFound, but not if
        ``partial``."""
        if self._etag is not None:
            transaction.etag = self._etag
        if self._bad and not self._partial:
            raise refuse_values([v for i in sorted(self._bad) for v in self._placed(i)])
        refused = Refusals() if self._partial else None
        load = Load(
            transaction,
            self._view.dataset,
            self._incoming.fields,
            self._view.guard,
            lacking=find_lacking(self._view, self._incoming.fields),
            refused=refused,
        )
        try:
            counts = await load.run(self._fresh, self._numbers, self._rows)
        except DuplicateKey as exc:
            twice = Violation(f"{self._place(exc.row)}.{self._key}", "occurs twice")
            raise ValueInvalid(str(exc), violations=[twice]) from exc
        for index, path, description in refused.found if refused else ():
            self._bad.setdefault(index, []).append(Violation(path, description))
        return self._report(counts)

    def _any_large(self) -> bool:
        return any(record.ByteSize() > LARGE_RECORD for record in self._records)

    @property
    def _key(self) -> str:
        return self._view.dataset.key_fields[0].path

    def _made_natively(self, stamp: Stamp) -> tuple[FreshRows, list[int]]:
        reader = RecordReader(self._view.dataset, self._incoming.fields)
        return reader.read(
            self._records,
            stamp.time,
            stamp.etag,
            lambda places: [self._incoming.values(self._records[i])[0] for i in places],
        )

    def _make_rows(self, indexes: Sequence[int]) -> tuple[list[int], list[list[Any]]]:
        """The indexes of the valid ones of some records, and their rows."""
        numbers, rows = [], []
        for index in indexes:
            budget.check_budget()
            row, violations = self._incoming.values(self._records[index])
            if violations:
                self._bad[index] = violations
            else:
                numbers.append(index)
                rows.append(row)
        problems = RowRules(self._view.dataset, self._incoming.fields).problems(rows)
        for at, found in problems.items():
            self._bad[numbers[at]] = [Violation(*p) for p in found]
        if problems:
            numbers = [n for i, n in enumerate(numbers) if i not in problems]
            rows = [row for i, row in enumerate(rows) if i not in problems]
        return numbers, [stored_row(self._incoming.fields, row) for row in rows]

    def _place(self, index: int) -> str:
        return f"{self._view.dataset.name}[{index}]"

    def _placed(self, index: int) -> list[Violation]:
        place = self._place(index)
        return [
            Violation(f"{place}.{v.field}" if v.field else place, v.description)
            for v in self._bad[index]
        ]

    def _report(self, counts: Counts) -> Report:
        report = Report(counts, refused=len(self._bad))
        for index in sorted(self._bad):
            key = message_key(self._view.dataset, self._records[index])
            for v in self._bad[index]:
                report.add(RowProblem(index + 1, key, v.field, v.description))
        return report
