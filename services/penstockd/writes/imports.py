"""Import: an uploaded file of any size, all of it or, if asked for, the rows that are good."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from penstockd import budget
from penstockd.budget import SECONDS_PER_BYTE, offload, offload_large
from penstockd.calls import Call
from penstockd.catalog import Dataset
from penstockd.catalog.rules import RowRules, Rules
from penstockd.errors import (
    ImportFormatInvalid,
    ImportRowInvalid,
    ImportTruncated,
    Violation,
)
from penstockd.exports.pipeline import next_item
from penstockd.formats import Batch, FormatError, Reader, pick, reader
from penstockd.hub import Hub
from penstockd.policy.model import Action
from penstockd.policy.view import View
from penstockd.store.fresh import FreshRows
from penstockd.store.loading import Load
from penstockd.store.rows import stored_row
from penstockd.store.writer import DuplicateKey, Refusals, WriteTransaction
from penstockd.writes.idempotency import Once, Request
from penstockd.writes.incoming import key_problem, lacking
from penstockd.writes.outgoing import ReplyView
from penstockd.writes.pace import Pace
from penstockd.writes.report import REPORT, Report, RowProblem

#: Rows that are merged at once.
BATCH_ROWS = 10_000
#: Bad rows that are reported; the others are counted.
REPORTED_ROWS = 100

#: Format, compression, content type, bytes.
Piece = tuple[str, str, str, bytes]


class Upload(Protocol):
    """A file as it comes, piece by piece."""

    def pieces(self) -> AsyncIterator[Piece]:
        """The pieces, up to their end or to where the upload was cut off."""

    async def confirm_whole(self) -> None:
        """Raise ImportTruncated if the pieces have ended because the upload was cut off."""


async def import_records(
    hub: Hub,
    call: Call,
    dataset: Dataset,
    upload: Upload,
    request: Request,
    *,
    partial: bool = False,
) -> Report:
    """Create the records whose keys are new and update the others where they differ.

    The first piece decides format, compression and content type. In CSV, columns that are absent
    keep their values; the other formats replace all fields that the caller may write. The digest
    of ``request`` is of all but the file.

    Raises PermissionDenied (the caller must be allowed to create and to update), FormatUnknown,
    ValueInvalid (no such compression), ImportFormatInvalid, ImportTruncated, RequestTooLarge,
    ClientStalled, CallTooCostly, RequestInFlight, RequestIdReused, RecordNotFound (out of the
    caller's sight), and ImportRowInvalid with the first REPORTED_ROWS bad rows. Nothing was loaded
    then. With ``partial`` the last two are said of rows in the report and the others are loaded;
    what makes the file unreadable from some place on refuses all of it still.
    """
    reply = ReplyView(call, dataset, Action.CREATE, Action.UPDATE)
    view = reply.view
    source = upload.pieces()
    first = await anext(source, None)
    if first is None:
        raise ImportTruncated("the upload is empty")
    load = Import(dataset, view, _reader(call, view, first, request, partial), partial=partial)
    once = Once(call, "" if request.validate_only else request.request_id)
    seen = hashlib.sha256(request.digest)
    hashed = seen if request.request_id else None
    pieces = _pieces(first[3], source, hashed, hub.import_stall_seconds)

    # Not run to its end if the caller goes away: a file that breaks off is not loaded.
    try:
        async with call.transaction(hub, dry=request.validate_only, bulk=True) as transaction:
            stored = await once.claim(transaction)
            if stored is None:
                report = await load.run(transaction, pieces)
                await upload.confirm_whole()
                await _note(call, transaction, request, once, report, seen)
                return reply.report(report)
    except FormatError as exc:
        raise (ImportTruncated if exc.truncated else ImportFormatInvalid)(str(exc)) from exc
    # Only the whole file tells whether it is the same. No transaction waits for it meanwhile.
    async for _ in pieces:
        pass
    async with call.transaction(hub) as transaction:
        return reply.report(await once.replay(transaction, stored, seen.digest(), REPORT))


def _reader(call: Call, view: View, first: Piece, request: Request, partial: bool) -> Reader:
    """Reads files of the form that the first piece says. Raises FormatUnknown and ValueInvalid."""
    named, compression, content_type, _ = first
    format = pick(named, content_type or None)
    call.asked(
        format=format,
        compression=compression.upper(),
        partial=partial,
        validate_only=request.validate_only,
    )
    offered = [f for f in view.fields() if f.output_only or f in view.writable]
    return reader(format, view.dataset, offered, compression=compression)


async def _note(
    call: Call,
    transaction: WriteTransaction,
    request: Request,
    once: Once,
    report: Report,
    seen: Any,
) -> None:
    """Put on record what was loaded, in the transaction that loads it; ``seen`` hashes the file."""
    rows = report.counts.total
    if request.validate_only:
        call.entry.row_count = rows
        return
    await once.keep(transaction, REPORT, report, seen.digest(), rows)
    await call.audit_within(transaction.connection, rows)


async def _pieces(
    first: bytes, source: AsyncIterator[Piece], seen: Any, stall_seconds: float
) -> AsyncIterator[bytes]:
    """The bytes of the file, which go through the hash ``seen`` if it is not None.

    Each byte lets the import compute for longer. Raises ClientStalled.
    """
    pace, spending, data = Pace(stall_seconds), budget.current(), first
    while True:
        if spending is not None:
            spending.allow(len(data) * SECONDS_PER_BYTE)
        if seen is not None:
            await offload_large(len(data), seen.update, data)
        yield data
        piece = await pace.next(source, len(data))
        if piece is None:
            return
        data = piece[3]


@dataclass
class _Parsed:
    """Rows of a batch that are ready for the store, each with its number in the file."""

    fresh: FreshRows = field(default_factory=FreshRows)
    numbers: list[int] = field(default_factory=list)
    rows: list[list[Any]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.fresh) + len(self.rows)

    def keys(self, at: int) -> dict[int, str]:
        """The keys by number, ``at`` being their place in ``rows``."""
        found = dict(zip(self.fresh.numbers, self.fresh.keys, strict=True))
        return found | {n: row[at] for n, row in zip(self.numbers, self.rows, strict=True)}


class Import:
    """One import: parses in a thread while the database merges what was parsed before.

    Without ``native`` all rows go through the interpreter, to the same end but slowly. With
    ``partial`` bad rows are left out, else they are the end of it.
    """

    def __init__(
        self,
        dataset: Dataset,
        view: View,
        source: Reader,
        *,
        native: bool = True,
        partial: bool = False,
    ) -> None:
        self._dataset, self._view, self._reader = dataset, view, source
        self._report = Report()
        self._parsed = _Parsed()
        self._native, self._partial = native, partial
        self._rules: RowRules | None = None
        self._lacking: list[Violation] = []
        self._refusing = threading.Lock()

    async def run(self, transaction: WriteTransaction, pieces: AsyncIterator[bytes]) -> Report:
        """Load everything. Raises FormatError and ImportRowInvalid."""
        if self._native:
            self._reader.write_as(transaction.time, transaction.revision)
        batches: asyncio.Queue[_Parsed | None] = asyncio.Queue(2)

        async def parse() -> None:
            async for piece in pieces:
                await take(self._reader.feed(piece))
            await take(self._reader.close())
            if len(self._parsed):
                await batches.put(self._parsed)
            await batches.put(None)

        async def take(found: Iterator[Batch]) -> None:
            # One batch at a time: a small piece may hold very many rows, compressed.
            while (batch := await offload(self._collect, found)) is not None:
                await batches.put(batch)

        parser = budget.task(parse())
        try:
            while (batch := await next_item(batches, parser)) is not None:
                if self._partial or not self._report.refused:
                    await self._merge(transaction, batch)
        finally:
            parser.cancel()
            await asyncio.gather(parser, return_exceptions=True)
        if self._report.refused and not self._partial:
            raise self._bad_rows()
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
            self._refuse(exc.row, [(self._dataset.key.path, "occurs twice in the file")])
            return
        self._report.counts.add(counts)
        if refused is not None and refused.found:
            await offload(self._refuse_all, refused, batch)

    def _refuse_all(self, refused: Refusals, batch: _Parsed) -> None:
        keys, by_number = batch.keys(self._key_at), refused.by_index()
        for number in sorted(by_number):
            self._refuse(number, by_number[number], keys[number])

    @property
    def _key_at(self) -> int:
        return next(i for i, f in enumerate(self._reader.fields) if f.key)

    def _collect(self, found: Iterator[Batch]) -> _Parsed | None:
        """The next full batch of what is found; None if there is too little for one."""
        for part in found:
            budget.check()
            self._check(part)
            if part.fresh:
                self._parsed.fresh.extend(part.fresh)
            fields = self._reader.fields
            if any(f.repeated for f in fields):
                for row in part.rows:
                    stored_row(fields, row)
            self._parsed.numbers += part.numbers
            self._parsed.rows += part.rows
            if len(self._parsed) >= BATCH_ROWS:
                ready, self._parsed = self._parsed, _Parsed()
                return ready
        return None

    def _check(self, part: Batch) -> None:
        """Refuse the bad rows of a part, and take from its rows those that rules speak against."""
        for bad in part.bad:
            self._refuse(bad.row, [(bad.field, bad.reason)], bad.key)
        if not part.rows:
            return
        if self._rules is None:
            self._begin()
            assert self._rules is not None
        at = self._key_at
        problems: dict[int, list[tuple[str, str]]] = {}
        for index, row in enumerate(part.rows):
            if problem := key_problem(row[at]):
                problems[index] = [(self._dataset.key.path, problem)]
        for index, found in self._rules.problems(part.rows).items():
            problems.setdefault(index, []).extend((p.path, p.description) for p in found)
        if problems:
            for index in sorted(problems):
                key = part.rows[index][at]
                self._refuse(part.numbers[index], problems[index], key)
            good = [i for i in range(len(part.rows)) if i not in problems]
            part.numbers = [part.numbers[i] for i in good]
            part.rows = [part.rows[i] for i in good]

    def _begin(self) -> None:
        """The first rows are there, and so it is known which fields the file has."""
        fields = self._reader.fields
        self._rules = RowRules(self._dataset, fields)
        self._lacking = lacking(self._view, fields)
        if Rules.of(self._dataset).over_several and len(fields) < len(self._view.writable):
            raise FormatError(
                f"{self._dataset.name} have rules over several fields: name all columns"
            )

    def _refuse(self, row: int, problems: Sequence[tuple[str, str]], key: str = "") -> None:
        with self._refusing:  # rows are parsed in a thread
            self._report.refused += 1
            for path, description in problems:
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
