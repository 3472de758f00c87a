"""Import: an uploaded file of any size, all of it or nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from penstockd.catalog import Dataset
from penstockd.commands.context import Call, Hub
from penstockd.commands.incoming import key_problem
from penstockd.commands.pipeline import next_item
from penstockd.errors import (
    ImportFormatInvalid,
    ImportRowInvalid,
    ImportTruncated,
    Violation,
)
from penstockd.formats import BadRow, FormatError, Reader, pick, reader
from penstockd.policy.model import Action
from penstockd.policy.view import View
from penstockd.store.fresh import FreshRows
from penstockd.store.loading import Load
from penstockd.store.rows import stored_row
from penstockd.store.writer import Counts, DuplicateKey, WriteTransaction

#: Rows that are merged at once.
BATCH_ROWS = 10_000
#: Bad rows that are reported; the others are counted.
REPORTED_ROWS = 100

Upload = AsyncIterator[tuple[str, str, bytes]]


async def import_records(hub: Hub, call: Call, dataset: Dataset, upload: Upload) -> Counts:
    """Create the records whose keys are new and update the others where they differ.

    ``upload`` gives (format, content type, bytes); what stands first decides. In CSV, columns that
    are absent keep their values; JSON and NDJSON replace all fields that the caller may write.

    Raises PermissionDenied (the caller must be allowed to create and to update), FormatUnknown,
    ImportFormatInvalid, ImportTruncated, and ImportRowInvalid with the first REPORTED_ROWS bad
    rows. Nothing was loaded then.
    """
    view = call.view(dataset, Action.CREATE)
    call.view(dataset, Action.UPDATE)
    first = await anext(upload, None)
    if first is None:
        raise ImportTruncated("the upload is empty")
    format = pick(first[0], first[1] or None)
    call.asked(format=format)
    offered = [f for f in view.fields() if f.output_only or f in view.writable]
    load = Import(dataset, view, reader(format, dataset, offered))

    async def write() -> Counts:
        async with hub.writer.transaction() as transaction:
            await load.run(transaction, _pieces(first[2], upload))
            await call.audit_within(transaction, load.counts.total)
        return load.counts

    # Not run to its end if the caller goes away: a file that breaks off is not loaded.
    try:
        return await write()
    except FormatError as exc:
        truncated = "ends" in exc.reason
        raise (ImportTruncated if truncated else ImportFormatInvalid)(str(exc)) from exc


async def _pieces(first: bytes, upload: Upload) -> AsyncIterator[bytes]:
    yield first
    async for _, _, data in upload:
        yield data


@dataclass
class _Parsed:
    """Rows of a batch that are ready for the store, each with its number in the file."""

    fresh: FreshRows = field(default_factory=FreshRows)
    numbers: list[int] = field(default_factory=list)
    rows: list[list[Any]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.fresh) + len(self.rows)


class Import:
    """One import: parses in a thread while the database merges what was parsed before.

    Without ``native`` all rows go through the interpreter, to the same end but slowly.
    """

    def __init__(
        self, dataset: Dataset, view: View, source: Reader, *, native: bool = True
    ) -> None:
        self._dataset, self._view, self._reader = dataset, view, source
        self.counts = Counts()
        self._bad: list[BadRow] = []
        self._bad_rows = 0
        self._parsed = _Parsed()
        self._native = native

    async def run(self, transaction: WriteTransaction, pieces: AsyncIterator[bytes]) -> None:
        """Load everything. Raises FormatError and ImportRowInvalid."""
        if self._native:
            self._reader.write_as(transaction.time, transaction.revision)
        batches: asyncio.Queue[_Parsed | None] = asyncio.Queue(2)

        async def parse() -> None:
            async for piece in pieces:
                for batch in await asyncio.to_thread(self._feed, piece):
                    await batches.put(batch)
            for batch in await asyncio.to_thread(self._close):
                await batches.put(batch)
            await batches.put(None)

        parser = asyncio.create_task(parse())
        try:
            while (batch := await next_item(batches, parser)) is not None:
                if not self._bad_rows:
                    await self._merge(transaction, batch)
        finally:
            parser.cancel()
            await asyncio.gather(parser, return_exceptions=True)
        self._refuse_bad_rows()

    async def _merge(self, transaction: WriteTransaction, batch: _Parsed) -> None:
        try:
            load = Load(transaction, self._dataset, self._reader.fields, self._view.guard)
            counts = await load.run(batch.fresh, batch.numbers, batch.rows)
        except DuplicateKey as exc:
            self._refuse([BadRow(exc.row, self._dataset.key.path, "occurs twice in the file")])
            return
        self.counts.created += counts.created
        self.counts.updated += counts.updated
        self.counts.unchanged += counts.unchanged

    def _feed(self, piece: bytes) -> list[_Parsed]:
        return self._collect(self._reader.feed(piece), final=False)

    def _close(self) -> list[_Parsed]:
        return self._collect(self._reader.close(), final=True)

    def _collect(self, found: Iterator[Any], *, final: bool) -> list[_Parsed]:
        """Full batches of what was found; with ``final`` the last one too, full or not."""
        ready = []
        for part in found:
            if part.bad:
                self._refuse(part.bad)
            self._check_keys(part.numbers, part.rows)
            fields = self._reader.fields
            if any(f.repeated for f in fields):
                for row in part.rows:
                    stored_row(fields, row)
            if part.fresh:
                self._parsed.fresh.extend(part.fresh)
            self._parsed.numbers += part.numbers
            self._parsed.rows += part.rows
            if len(self._parsed) >= BATCH_ROWS:
                ready.append(self._parsed)
                self._parsed = _Parsed()
        if final and len(self._parsed):
            ready.append(self._parsed)
        return ready

    def _check_keys(self, numbers: Sequence[int], rows: Sequence[Sequence[Any]]) -> None:
        path = self._dataset.key.path
        at = next(i for i, f in enumerate(self._reader.fields) if f.key)
        for number, row in zip(numbers, rows, strict=True):
            if problem := key_problem(row[at]):
                self._refuse([BadRow(number, path, problem)])

    def _refuse(self, rows: Sequence[BadRow]) -> None:
        self._bad_rows += len(rows)
        self._bad.extend(rows[: REPORTED_ROWS - len(self._bad)])

    def _refuse_bad_rows(self) -> None:
        if not self._bad_rows:
            return
        violations = [
            Violation(f"rows[{b.row}].{b.field}" if b.field else f"rows[{b.row}]", b.reason)
            for b in self._bad
        ]
        first = violations[0]
        raise ImportRowInvalid(
            f"{self._bad_rows} bad rows, nothing was loaded; the first: "
            f"{first.field}: {first.description}",
            violations=violations,
            metadata={"bad_rows": str(self._bad_rows)},
        )
