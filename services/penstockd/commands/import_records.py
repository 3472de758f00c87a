"""Import: an uploaded file of any size, all of it or, on request, only the valid rows."""

from __future__ import annotations

from penstockd.calls import Call
from penstockd.catalog import Dataset
from penstockd.formats import open_reader, pick_format
from penstockd.policy.model import Action
from penstockd.writes.arrival import ImportLimits
from penstockd.writes.idempotency import Request
from penstockd.writes.imports import Import
from penstockd.writes.outgoing import ReplyView
from penstockd.writes.report import Report
from penstockd.writes.uploads import Upload, UploadedFile, load_once


async def import_records(
    call: Call,
    dataset: Dataset,
    upload: Upload,
    request: Request,
    *,
    limits: ImportLimits,
    partial: bool = False,
) -> Report:
    """Create the records whose keys are new and update the others where they differ.

    The first piece decides format, compression and content type. In CSV, fields without a column
    keep their values; the other formats replace all fields that the caller may write. The digest
    of ``request`` covers everything but the file.

    Raises PermissionDenied (the caller must be allowed to create and to update), FormatUnknown,
    ValueInvalid (no such compression), ImportFormatInvalid, ImportTruncated, RequestTooLarge,
    ImportTooLong, ClientStalled, CallTooCostly, ShareExhausted, StorageFull, RequestInFlight,
    RequestIdReused, RecordNotFound (out of the caller's sight), and ImportRowInvalid with the first
    REPORTED_ROWS bad rows. Then nothing was loaded. With ``partial`` the last two are reported for
    each row and the other rows are loaded; an error that makes the rest of the file unreadable
    still refuses all of it.
    """
    reply = ReplyView(call, dataset, Action.CREATE, Action.UPDATE)
    view = reply.view
    file = await UploadedFile.begin(upload, request, limits)
    format = pick_format(file.format, file.content_type or None)
    compression, validate_only = file.compression, request.validate_only
    call.asked(
        format=format,
        compression=compression.upper(),
        partial=partial,
        validate_only=validate_only,
    )
    offered = [f for f in view.fields() if f.output_only or f in view.writable]
    source = open_reader(
        format, dataset, offered, compression=compression, spool_place=limits.spools
    )
    load = Import(dataset, view, source, partial=partial)
    return reply.report(await load_once(call, upload, file, load, request))
