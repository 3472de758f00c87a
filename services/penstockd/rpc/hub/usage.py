"""The service Usage: reports of what consumers used."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from penstock.hub.v1 import usage_pb2
from penstockd.commands.usage.report_usage import report_usage
from penstockd.metering.report import DIMENSIONS, UsageQuestion, UsageRow
from penstockd.rpc.door import Route
from penstockd.rpc.exchange import ServedCall
from penstockd.rpc.hub.messages import time_of
from penstockd.rpc.routes import routes_of

_SERVICE = usage_pb2.DESCRIPTOR.services_by_name["Usage"]


def list_routes() -> Iterator[Route]:
    """The service's methods."""
    yield from routes_of(_SERVICE, {"ReportUsage": _report_usage})


async def _report_usage(
    request: usage_pb2.ReportUsageRequest, call: ServedCall
) -> usage_pb2.ReportUsageResponse:
    question = UsageQuestion(
        tuple(request.group_by),
        time_of(request, "start_time"),
        time_of(request, "end_time"),
        request.time_zone,
        {name: getattr(request, name) for name in DIMENSIONS if getattr(request, name)},
        request.order_by,
    )
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


def _row_message(row: UsageRow) -> usage_pb2.UsageRow:
    counts = row.counts
    named: dict[str, Any] = {**row.values, **counts._asdict()}
    return usage_pb2.UsageRow(
        time=row.time,
        **named,
        error_rate=counts.errors / counts.calls if counts.calls else 0.0,
    )
