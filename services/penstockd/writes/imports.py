"""Imports: the rows of a file, parsed, checked and loaded."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from penstockd import budget
from penstockd.budget import run_offloaded
from penstockd.catalog import Dataset
from penstockd.catalog.keys import ReadKey, key_problems, key_reader, parts_reader
from penstockd.catalog.rules import RowRules, Rules
from penstockd.errors import ImportRowInvalid, Violation
from penstockd.formats import FormatError, Reader, RowBatch
from penstockd.policy.view import View
from penstockd.store.fresh import FreshRows
from penstockd.store.loading import Load
from penstockd.store.rows import stored_row
from penstockd.store.writer import DuplicateKey, Refusals, WriteTransaction
from penstockd.tasks import next_item
from penstockd.writes.incoming import find_lacking
from penstockd.writes.preview import Preview
from penstockd.writes.report import Report, RowProblem

#: The number of rows that are merged at once.
BATCH_ROWS = 10_000
#: The most bad rows that are reported; further ones are only counted.
REPORTED_ROWS = 100


@dataclass
class _Parsed:
    """Rows of a batch that are ready for the store, with their numbers in the file."""

    fresh: FreshRows = field(default_factory=FreshRows)
    numbers: list[int] = field(default_factory=list)
    rows: list[list[Any]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.fresh) + len(self.rows)

    def keys(self, key_of: ReadKey) -> dict[int, str]:
        """The keys by row number; ``key_of`` reads them from ``rows``."""
        found = dict(zip(self.fresh.numbers, self.fresh.keys, strict=True))
        return found | {n: key_of(row) for n, row in zip(self.numbers, self.rows, strict=True)}


class Import:
    """One import: a thread parses rows while the database merges those parsed before.

    Without ``native`` all rows go through the interpreter, with the same result but slowly. With
    ``partial`` bad rows are left out; otherwise they end the import. A ``preview`` notes how the
    columns are understood.
    """

    def __init__(
        self,
        dataset: Dataset,
        view: View,
        source: Reader,
        *,
        native: bool = True,
        partial: bool = False,
        preview: Preview | None = None,
    ) -> None:
        self._dataset, self._view, self._reader = dataset, view, source
        self._report = Report()
        self._parsed = _Parsed()
        self._native, self._partial, self._preview = native, partial, preview
        self._rules: RowRules | None = None
        self._lacking: list[Violation] = []
        self._refusing = threading.Lock()

    async def run(self, transaction: WriteTransaction, pieces: AsyncIterator[bytes]) -> Report:
        """Load everything. Raises FormatError and ImportRowInvalid."""
        if self._native:
            self._reader.write_as(transaction.time, transaction.etag)
        batches: asyncio.Queue[_Parsed | None] = asyncio.Queue(2)

        async def parse() -> None:
            async for piece in pieces:
                await take(self._reader.feed(piece))
            async with aclosing(self._reader.finish()) as parts:
                async for found in parts:
                    await take(found)
            if len(self._parsed):
                await batches.put(self._parsed)
            await batches.put(None)

        async def take(found: Iterator[RowBatch]) -> None:
            # One batch at a time: a small compressed piece may hold very many rows.
            while (batch := await run_offloaded(self._collect, found)) is not None:
                await batches.put(batch)

        parser = budget.create_task(parse())
        try:
            while (batch := await next_item(batches, parser)) is not None:
                if self._partial or not self._report.refused:
                    await self._merge(transaction, batch)
        finally:
            parser.cancel()
            await asyncio.gather(parser, return_exceptions=True)
        if self._report.refused and not self._partial:
            raise self._bad_rows()
        if (unknown := self._reader.leniency.unknown) is not None:
            self._report.ignored, self._report.ignored_values = unknown.counts, unknown.total
        if self._preview is not None:
            self._report.columns = self._preview.columns()
        return self._report.in_order()

    async def _merge(self, transaction: WriteTransaction, batch: _Parsed) -> None:
        refused = Refusals() if self._partial else None
        try:
            load = Load(
                transaction,
                self._dataset,
                self._reader.fields,
                self._view.guard,
                lacking=self._lacking,
                refused=refused,
            )
            counts = await load.run(batch.fresh, batch.numbers, batch.rows)
        except DuplicateKey as exc:
            self._refuse(exc.row, [(self._key_path, "occurs twice in the file")])
            return
        self._report.counts.add(counts)
        if refused is not None and refused.found:
            await run_offloaded(self._refuse_all, refused, batch)

    def _refuse_all(self, refused: Refusals, batch: _Parsed) -> None:
        keys, by_number = batch.keys(self._key_of), refused.by_index()
        for number in sorted(by_number):
            self._refuse(number, by_number[number], keys[number])

    @property
    def _key_of(self) -> ReadKey:
        return key_reader(self._dataset, self._reader.fields)

    @property
    def _key_path(self) -> str:
        return self._dataset.key_fields[0].path

    def _collect(self, found: Iterator[RowBatch]) -> _Parsed | None:
        """The next full batch of rows; None if there are too few for one."""
        for part in found:
            budget.check_budget()
            if self._preview is not None:
                self._preview.take(part)
            self._check(part)
            if part.fresh:
                self._parsed.fresh.extend(part.fresh)
            fields = self._reader.fields
            if any(f.is_json for f in fields):
                for row in part.rows:
                    stored_row(fields, row)
            self._parsed.numbers += part.numbers
            self._parsed.rows += part.rows
            if len(self._parsed) >= BATCH_ROWS:
                ready, self._parsed = self._parsed, _Parsed()
                return ready
        return None

    def _check(self, part: RowBatch) -> None:
        """Refuse the bad rows of a part, and remove its rows that break rules."""
        for bad in part.bad:
            self._refuse(bad.row, [(bad.field, bad.reason)], bad.key)
        if not part.rows:
            return
        if self._rules is None:
            self._begin()
            assert self._rules is not None
        key_of, fields = self._key_of, self._reader.fields
        parts_of = parts_reader(self._dataset, fields)
        problems: dict[int, list[tuple[str, str]]] = {}
        for index, row in enumerate(part.rows):
            if wrong := key_problems(self._dataset, parts_of(row)):
                problems[index] = wrong
        for index, found in self._rules.problems(part.rows).items():
            problems.setdefault(index, []).extend((p.path, p.description) for p in found)
        if problems:
            for index in sorted(problems):
                key = key_of(part.rows[index])
                self._refuse(part.numbers[index], problems[index], key)
            good = [i for i in range(len(part.rows)) if i not in problems]
            part.numbers = [part.numbers[i] for i in good]
            part.rows = [part.rows[i] for i in good]

    def _begin(self) -> None:
        """Prepare for the file's fields, which are known once its first rows are."""
        fields = self._reader.fields
        self._rules = RowRules(self._dataset, fields)
        self._lacking = find_lacking(self._view, fields)
        if Rules.of(self._dataset).over_several and len(fields) < len(self._view.writable):
            raise FormatError(
                f"{self._dataset.name} have rules over several fields: name all columns"
            )

    def _refuse(self, row: int, problems: Sequence[tuple[str, str]], key: str = "") -> None:
        with self._refusing:  # rows are parsed in a thread
            self._report.refused += 1
            for path, description in problems:
                if self._preview is not None:
                    self._preview.count_refused(path)
                self._report.add(RowProblem(row, key, path, description))

    def _bad_rows(self) -> ImportRowInvalid:
        total = self._report.refused
        problems = self._report.in_order().problems[:REPORTED_ROWS]
        violations = [
            Violation(f"rows[{p.row}].{p.field}" if p.field else f"rows[{p.row}]", p.description)
            for p in problems
        ]
        first = violations[0]
        return ImportRowInvalid(
            f"{total} bad rows, nothing was loaded; the first: {first.field}: {first.description}",
            violations=violations,
            metadata={"bad_rows": str(total)},
        )
