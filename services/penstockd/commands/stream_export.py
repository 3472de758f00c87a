"""StreamExport: all records that match, as a file of any size, from one state of the data."""

from __future__ import annotations

from penstockd.calls import Call
from penstockd.catalog import Dataset
from penstockd.exports.plan import ExportPlan, ExportRequest
from penstockd.exports.run import ExportReply, run_export
from penstockd.hub import Hub
from penstockd.policy.model import Action
from penstockd.shapes.using import choose_shape


async def stream_export(
    hub: Hub, call: Call, dataset: Dataset, export: ExportRequest, reply: ExportReply
) -> None:
    """Send the records to ``reply``, all of one state, in key order unless asked otherwise.

    Nothing has been sent when PermissionDenied, FieldUnknown, FilterInvalid, OrderInvalid,
    FormatUnknown, ValueInvalid, ShapeNotFound, ReceiptNotFound or ExportNotResumable is raised. A
    later error ends the stream and is written to the receipt: ClientStalled, AccessChanged (access
    was revoked or narrowed meanwhile), DatabaseUnavailable.
    """
    view = call.view(dataset, Action.READ)
    chosen = await choose_shape(hub, call, dataset, export.shape)
    shaped = chosen.in_view(view) if chosen else None
    await run_export(hub, call, ExportPlan.of(call, view, export, shaped), reply)
