"""A file that streams from the hub: it resumes after a broken connection, and is checked."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Generator, Iterator
from typing import Any, Self

from penstock.client.errors import ExportIncomplete, PenstockError
from penstock.client.link import Link, Metadata
from penstock.client.retry import Backoff
from penstock.hub.v1 import receipts_pb2

#: How often one export is resumed at most; each time with BACKOFF's pauses until bytes arrive.
RESUMES = 20
BACKOFF = Backoff(attempts=8, first=0.1, most=2.0)

_HEADER = "penstock-receipt"


class Export(Iterator[bytes]):
    """The bytes of one export, in chunks of arbitrary size.

    If the connection breaks, the export resumes where it broke off, on the same state of the data.
    Only an iteration that ends without an error has delivered everything: then the hub's
    ``receipt`` matched the number of bytes and the SHA-256 of everything that arrived.

    Raises PenstockError: EXPORT_NOT_RESUMABLE if the export must be started again, and
    ExportIncomplete if the receipt is missing or does not match.
    """

    def __init__(self, link: Link, method: Any, request: Any, *, timeout: float | None) -> None:
        self.receipt: receipts_pb2.Receipt | None = None
        self.receipt_id = ""
        self.size = 0
        self._link, self._method, self._request = link, method, request
        self._deadline = None if timeout is None else time.monotonic() + timeout
        self._digest = hashlib.sha256()
        self._chunks = self._run()

    def __next__(self) -> bytes:
        return next(self._chunks)

    def close(self) -> None:
        """Ends the call, if it is still running."""
        self._chunks.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> Generator[bytes, None, None]:
        pauses, resumes = BACKOFF.pauses(), 0
        while True:
            beside, before = Metadata(), self.size
            try:
                yield from self._once(beside)
            except PenstockError as error:
                if not self._broken(error) or resumes == RESUMES:
                    raise
                if self.size > before:
                    pauses, resumes = BACKOFF.pauses(), resumes + 1
                if (pause := next(pauses)) is None or self._late(pause):
                    raise
                time.sleep(pause)
                continue
            self._check(beside)
            return

    def _once(self, beside: Metadata) -> Generator[bytes, None, None]:
        """The bytes that arrive in one call."""
        if self.receipt_id:
            self._request.resume_receipt = self.receipt_id
            self._request.resume_offset = self.size
        timeout = None
        if self._deadline is not None:
            timeout = max(0.001, self._deadline - time.monotonic())
        bodies = self._link.stream(self._method, self._request, timeout=timeout, beside=beside)
        try:
            for body in bodies:
                self.receipt_id = str(beside.headers.get(_HEADER, self.receipt_id))
                self._digest.update(body.data)
                self.size += len(body.data)
                yield body.data
        finally:
            bodies.close()

    def _broken(self, error: PenstockError) -> bool:
        """Whether the connection, rather than the hub, ended the call."""
        if not self.receipt_id or error.code == "DEADLINE_EXCEEDED":
            return False
        return not error.reason or error.code == "UNAVAILABLE"

    def _late(self, pause: float) -> bool:
        return self._deadline is not None and time.monotonic() + pause >= self._deadline

    def _check(self, beside: Metadata) -> None:
        self.receipt_id = str(beside.headers.get(_HEADER, self.receipt_id))
        data = beside.trailers.get(f"{_HEADER}-bin")
        if not isinstance(data, bytes):
            raise ExportIncomplete("the export ended without a receipt", self.receipt_id)
        receipt = receipts_pb2.Receipt.FromString(data)
        state = receipts_pb2.Receipt.State.Name(receipt.state)
        if state != "COMPLETE":
            raise ExportIncomplete(f"the receipt says that the export is {state}", self.receipt_id)
        if receipt.byte_count != self.size:
            raise ExportIncomplete(
                f"{self.size:,} bytes have arrived, not {receipt.byte_count:,}", self.receipt_id
            )
        if receipt.sha256 != self._digest.hexdigest():
            raise ExportIncomplete(
                "the received bytes differ from those sent: the SHA-256 does not match",
                self.receipt_id,
            )
        self.receipt = receipt
