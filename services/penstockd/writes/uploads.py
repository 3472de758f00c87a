"""Uploads: the file of an import as it arrives, loaded once for its request id."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from penstockd import budget
from penstockd.budget import SECONDS_PER_BYTE, offload_large
from penstockd.calls import Call
from penstockd.errors import ImportFormatInvalid, ImportTooLong, ImportTruncated
from penstockd.formats import FormatError
from penstockd.formats.options import FROM_FILE, ReadOptions
from penstockd.store.writer import WriteTransaction
from penstockd.writes.arrival import Arrival, ImportLimits
from penstockd.writes.idempotency import Once, Request
from penstockd.writes.imports import Import
from penstockd.writes.report import REPORT, Report


@dataclass(frozen=True, slots=True)
class FileForm:
    """What an import says of its file: how it is read, and what is done with its rows.

    ``format`` is a name of ``formats.READERS``, in upper or lower case, or "" for that of
    ``content_type``. With ``partial``, bad rows are left out; otherwise they end the import. A
    ``preview`` writes nothing, and reports how columns are understood and what would be refused.
    ``shape`` names the shape whose columns the file has.
    """

    format: str = ""
    content_type: str = ""
    partial: bool = False
    options: ReadOptions = FROM_FILE
    preview: bool = False
    shape: str = ""


class Upload(Protocol):
    """A file that arrives piece by piece."""

    def pieces(self) -> AsyncIterator[bytes]:
        """The pieces of the file, up to their end or to where the upload was cut off."""

    async def confirm_whole(self) -> None:
        """Raise ImportTruncated if the pieces ended because the upload was cut off."""


class UploadedFile:
    """An upload whose first piece has arrived."""

    def __init__(
        self, first: bytes, rest: AsyncIterator[bytes], request: Request, limits: ImportLimits
    ) -> None:
        self.limits = limits
        self._arrival = Arrival(first, rest, limits)
        self._seen, self._hashed = hashlib.sha256(request.digest), bool(request.request_id)

    @classmethod
    async def begin(cls, upload: Upload, request: Request, limits: ImportLimits) -> UploadedFile:
        """Wait for the first piece. Raises ImportTruncated if there is none."""
        pieces = upload.pieces()
        first = await anext(pieces, None)
        if first is None:
            raise ImportTruncated("the upload is empty")
        return cls(first, pieces, request, limits)

    @property
    def digest(self) -> bytes:
        """The SHA-256 of the request and, if it has an id, of the bytes that were read."""
        return self._seen.digest()

    def hold_place(self) -> AbstractAsyncContextManager[None]:
        """Hold a place for a file while it arrives and waits. Raises ShareExhausted."""
        return self._arrival.hold_place()

    async def gather(self) -> None:
        """Receive the file until its rows may be locked; see ``arrival``.

        Raises ClientStalled and StorageFull.
        """
        await self._arrival.gather()

    async def read(self) -> AsyncGenerator[bytes, None]:
        """The bytes of the file. Each extends the import's computing time. Raises ClientStalled."""
        async for data in self._arrival.read():
            await self._note(data)
            yield data

    async def read_to_end(self) -> None:
        """Read a file that is not loaded, for its digest. Raises ClientStalled."""
        async with aclosing(self._arrival.read_unlocked()) as pieces:
            async for data in pieces:
                await self._note(data)

    async def _note(self, data: bytes) -> None:
        spending = budget.get_budget()
        if spending is not None:
            spending.allow(len(data) * SECONDS_PER_BYTE)
        if self._hashed:
            await offload_large(len(data), self._seen.update, data)


async def load_once(
    call: Call, upload: Upload, file: UploadedFile, load: Import, request: Request
) -> Report:
    """Load the file of an upload, unless a call with the same request id has loaded it.

    Unlike ``write_once`` it stops when the caller leaves: a file that breaks off is not loaded.
    Raises ImportFormatInvalid, ImportTruncated, ImportTooLong, ClientStalled, ShareExhausted,
    RequestInFlight, RequestIdReused and ImportRowInvalid; then nothing was loaded.
    """
    once = Once(call, "" if request.validate_only else request.request_id)
    async with file.hold_place():
        await file.gather()
        try:
            async with call.transaction(dry=request.validate_only, bulk=True) as transaction:
                stored = await once.claim(transaction)
                if stored is None:
                    async with _in_time(file.limits.seconds), aclosing(file.read()) as data:
                        report = await load.run(transaction, data)
                    if not request.validate_only:
                        # Before headers are sent: a refusal has headers of its own.
                        await call.charge_import(report.counts.total)
                    await upload.confirm_whole()
                    await _record_load(call, transaction, once, report, file, request)
                    return report
        except FormatError as exc:
            raise (ImportTruncated if exc.truncated else ImportFormatInvalid)(str(exc)) from exc
        # Only the whole file shows whether it is the same. Meanwhile no transaction is open.
        await file.read_to_end()
    async with call.transaction() as transaction:
        return await once.replay(transaction, stored, file.digest, REPORT)


@asynccontextmanager
async def _in_time(seconds: float) -> AsyncIterator[None]:
    """Hold rows in the block. Raises ImportTooLong after ``seconds``."""
    timeout = asyncio.timeout(seconds)
    try:
        async with timeout:
            yield
    except TimeoutError as exc:
        if not timeout.expired():
            raise
        raise ImportTooLong(
            f"the import held its rows for {seconds:g} s, and nothing was loaded; split the file"
        ) from exc


async def _record_load(
    call: Call,
    transaction: WriteTransaction,
    once: Once,
    report: Report,
    file: UploadedFile,
    request: Request,
) -> None:
    """Store the report and the audit entry, in the transaction that loads the file."""
    rows = report.counts.total
    if request.validate_only:
        call.entry.row_count = rows
        return
    await once.keep(transaction, REPORT, report, file.digest, rows)
    await call.audit_within(transaction.connection, rows)
