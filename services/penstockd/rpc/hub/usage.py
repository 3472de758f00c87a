"""The service Usage: reports of what consumers used."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from penstock.hub.v1 import usage_pb2
from penstockd.commands.usage.export_usage import export_usage
from penstockd.commands.usage.report_usage import report_usage
from penstockd.metering.files import FORMATS, find_content_type, name_file, rate_errors
from penstockd.metering.report import DIMENSIONS, UsageQuestion, UsageRow
from penstockd.rpc.door import Route
from penstockd.rpc.exchange import Handler, ServedCall
from penstockd.rpc.hub.files import make_file_sender
from penstockd.rpc.hub.messages import time_of
from penstockd.rpc.routes import routes_of

_SERVICE = usage_pb2.DESCRIPTOR.services_by_name["Usage"]


def list_routes() -> Iterator[Route]:
    """The service's methods."""
    handlers: dict[str, Handler] = {"ReportUsage": _report_usage, "ExportUsage": _export_usage}
    yield from routes_of(_SERVICE, handlers, documents={"ExportUsage"})


async def _report_usage(
    request: usage_pb2.ReportUsageRequest, call: ServedCall
) -> usage_pb2.ReportUsageResponse:
    question = _read_question(request)
    report, token = await report_usage(
        call.hub, call, question, request.page_size, request.page_token
    )
    return usage_pb2.ReportUsageResponse(
        rows=map(_row_message, report.rows),
        next_page_token=token,
        fresh_time=report.fresh,
        start_time=report.start,
        end_time=report.end,
    )


async def _export_usage(request: usage_pb2.ExportUsageRequest, call: ServedCall) -> None:
    form = call.exchange.pick_format(request.format, among=FORMATS)
    send = make_file_sender(call.exchange, name_file(form), find_content_type(form))
    await export_usage(call.hub, call, _read_question(request), form, send)


def _read_question(
    request: usage_pb2.ReportUsageRequest | usage_pb2.ExportUsageRequest,
) -> UsageQuestion:
    return UsageQuestion(
        tuple(request.group_by),
        time_of(request, "start_time"),
        time_of(request, "end_time"),
        request.time_zone,
        {name: getattr(request, name) for name in DIMENSIONS if getattr(request, name)},
        request.order_by,
    )


def _row_message(row: UsageRow) -> usage_pb2.UsageRow:
    named: dict[str, Any] = {**row.values, **row.counts._asdict()}
    return usage_pb2.UsageRow(time=row.time, **named, error_rate=rate_errors(row.counts))
