"""The wire form that all methods that write share: their requests and replies."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from dataclasses import fields
from typing import Any

from penstock.hub.v1.upload_complete_pb2 import UploadComplete
from penstockd.budget import offload_large
from penstockd.errors import ClientStalled, ImportTruncated
from penstockd.formats import ReadOptions
from penstockd.rpc.bounds import MESSAGE
from penstockd.rpc.exchange import Exchange, ServedCall
from penstockd.rpc.forms import UploadForm, is_form
from penstockd.rpc.reading import RequestReader
from penstockd.writes.idempotency import Request, chosen_request_id
from penstockd.writes.report import Report
from penstockd.writes.uploads import FileForm

IDEMPOTENCY_KEY = "idempotency-key"
REPLAYED = "penstock-replayed"
#: How long a form may take until its file begins.
FORM_SECONDS = 60.0


def write_request(request: Any, exchange: Exchange) -> Request:
    """The request id, from the field or the header, with a digest of the rest of the request.

    Removes the request id from ``request``, so that both ways to send it have the same digest.
    Raises ValueInvalid.
    """
    request_id = chosen_request_id(request.request_id, exchange.metadata.get(IDEMPOTENCY_KEY))
    digest = b""
    if request_id:
        request.ClearField("request_id")
        said = hashlib.sha256(request.SerializeToString(deterministic=True))
        for path, patch in sorted(exchange.merges.items()):
            said.update(json.dumps([path, patch.changes], default=str, sort_keys=True).encode())
        digest = said.digest()
    return Request(request_id, digest, request.validate_only, exchange.merges)


async def mark_replayed(call: ServedCall, reply: Any) -> Any:
    """The reply, with a header if it is a replay."""
    if call.replayed:
        await call.exchange.send_headers({REPLAYED: "true"})
    return reply


def fill_report(reply: Any, report: Report, **more: Any) -> Any:
    """A reply of the class ``reply`` with the counts and problems of a report."""
    return reply(
        created_count=report.counts.created,
        updated_count=report.counts.updated,
        unchanged_count=report.counts.unchanged,
        refused_count=report.refused,
        row_errors=[
            {"row": p.row, "key": p.key, "field": p.field, "description": p.description}
            for p in report.problems
        ],
        **more,
    )


def fill_import_report(reply: Any, report: Report) -> Any:
    """A reply with the report of an import."""
    ignored = [{"name": n, "value_count": count} for n, count in report.ignored.items()]
    return fill_report(
        reply,
        report,
        row_count=report.rows,
        ignored_names=ignored,
        ignored_value_count=report.ignored_values,
        columns=[
            {
                "name": c.name,
                "field": c.field,
                "type": c.type,
                "values": c.values,
                "refused_count": c.refused,
                "note": c.note,
            }
            for c in report.columns
        ],
    )


class GrpcUpload:
    """The requests of an import; the first one contains everything but the file."""

    def __init__(self, requests: Any, exchange: Exchange) -> None:
        self._requests, self._exchange = aiter(requests), exchange
        self._begun = False
        self._held = b""  # of the file, in the requests that were read so far
        self._form: UploadForm | None = None
        self._complete = UploadComplete()
        self._size, self._hash = 0, hashlib.sha256()

    async def begun(self) -> tuple[Request, FileForm]:
        """How the import is requested, and what it says of its file.

        Raises ValueInvalid, and for a form what ``RequestReader.read`` raises.
        """
        said = await anext(self._requests, None)
        if said is None:
            return Request(), FileForm()
        self._begun = True
        if is_form(said.file.content_type):
            self._form = UploadForm(said.file.content_type)
        self._held = await self._piece(said)
        if self._form is not None:
            await self._await_file(self._form)
            self._form.fill(said)
            self._complete = said.complete
        said.file.ClearField("data")
        said.ClearField("complete")
        if (
            self._form is not None
        ):  # its fields arrived as a file: now they are checked as a request
            reader = RequestReader(type(said), MESSAGE)
            said = await reader.read(said.SerializeToString())
        return write_request(said, self._exchange), _file_form(said)

    async def _await_file(self, form: UploadForm) -> None:
        """Read the form up to its file. Raises ClientStalled and ImportTruncated."""
        try:
            async with asyncio.timeout(FORM_SECONDS):
                while not form.begun:
                    request = await anext(self._requests, None)
                    if request is None:
                        raise ImportTruncated("the form ends before its file")
                    self._held += await self._piece(request)
        except TimeoutError:
            reason = f"the file of the form did not begin within {FORM_SECONDS:g} s"
            raise ClientStalled(reason) from None

    async def pieces(self) -> AsyncIterator[bytes]:
        """The pieces of the file.

        They can end before the upload is whole: see ``confirm_whole``.
        """
        if self._begun:
            held, self._held = self._held, b""
            yield held
            async for request in self._requests:
                yield await self._piece(request)

    async def confirm_whole(self) -> None:
        """Raise ImportTruncated unless the client has ended the upload itself.

        gRPC's iterator ends in the same way when the call was cut off. Only an operation on the
        call shows the difference: it fails at once if the call is dead. The upload must also match
        the client's own description of it (``complete``).
        """
        try:
            await self._exchange.flush_headers()
        except Exception as exc:
            raise ImportTruncated("the upload was cut off") from exc
        if self._form is not None:
            self._form.confirm_whole()
        size, digest = self._complete.byte_count, self._complete.sha256
        if size and size != self._size:
            raise ImportTruncated(
                f"{self._size} bytes of the upload arrived, but complete says {size}"
            )
        if digest and digest != self._hash.digest():
            raise ImportTruncated(
                f"the SHA-256 of the upload is {self._hash.hexdigest()}, complete says "
                f"{digest[:32].hex()}"
            )

    async def _piece(self, request: Any) -> bytes:
        if request.HasField("complete"):
            self._complete = request.complete
        data = request.file.data
        if self._form is not None:
            data = await offload_large(len(data), self._form.feed, data)
        self._size += len(data)
        await offload_large(len(data), self._hash.update, data)
        return bytes(data)


def _file_form(request: Any) -> FileForm:
    """What the first message of an import says of its file."""
    options = ReadOptions(**{f.name: getattr(request, f.name) for f in fields(ReadOptions)})
    form = (request.format, request.file.content_type, request.partial, options)
    return FileForm(*form, preview=request.preview, shape=request.shape)
