"""Import: an uploaded file of any size, all of it or, on request, only the valid rows."""

from __future__ import annotations

from dataclasses import asdict, replace

from penstockd.calls import Call, ReadingOrgans
from penstockd.catalog import Dataset
from penstockd.formats import pick_format
from penstockd.policy.model import Action
from penstockd.shapes.reader import open_import_reader
from penstockd.shapes.using import choose_shape
from penstockd.writes.arrival import ImportLimits
from penstockd.writes.idempotency import Request
from penstockd.writes.imports import Import
from penstockd.writes.outgoing import ReplyView
from penstockd.writes.preview import Preview
from penstockd.writes.report import Report
from penstockd.writes.uploads import FileForm, Upload, UploadedFile, load_once


async def import_records(
    organs: ReadingOrgans,
    call: Call,
    dataset: Dataset,
    upload: Upload,
    request: Request,
    form: FileForm,
    *,
    limits: ImportLimits,
) -> Report:
    """Create the records whose keys are new and update the others where they differ.

    ``form`` says how the file is read. In formats with columns, fields without a column
    keep their values; the other formats replace all fields that the caller may write. With a
    shape, fields that the shape lacks keep their values in every format. The digest of
    ``request`` covers everything but the file.

    Raises PermissionDenied (the caller must be allowed to create and to update), FormatUnknown,
    ValueInvalid (an option that is not understood, a shape that cannot be read back),
    ShapeNotFound, ImportFormatInvalid, ImportTruncated, RequestTooLarge, ImportTooLong,
    ClientStalled, CallTooCostly, ShareExhausted, StorageFull, RequestInFlight, RequestIdReused,
    RecordNotFound (out of the caller's sight), and ImportRowInvalid with the first REPORTED_ROWS
    bad rows. Then nothing was loaded. If ``form`` is partial, the last two are reported for each
    row and the other rows are loaded; an error that makes the rest of the file unreadable still
    refuses all of it.
    """
    if form.preview:
        request = replace(request, validate_only=True)
    reply = ReplyView(call, dataset, Action.CREATE, Action.UPDATE)
    view = reply.view
    file = await UploadedFile.begin(upload, request, limits)
    format, options = pick_format(form.format, form.content_type or None), form.options
    call.asked(format=format, **asdict(options))
    call.asked(partial=form.partial, preview=form.preview, validate_only=request.validate_only)
    reading = replace(options, ignore_unknown=True) if form.preview else options
    chosen = await choose_shape(organs, call, dataset, form.shape)
    source = open_import_reader(view, format, reading, chosen, limits.spools)
    preview = Preview(source, ignore_unknown=options.ignore_unknown) if form.preview else None
    load = Import(dataset, view, source, partial=form.partial or form.preview, preview=preview)
    return reply.report(await load_once(call, upload, file, load, request))
