"""The service Scorecards: the metrics by which the hub measures itself."""

from __future__ import annotations

from collections.abc import Iterator

from penstock.hub.v1 import scorecard_pb2
from penstockd.commands.scorecard.export_scorecard import export_scorecard
from penstockd.commands.scorecard.get_scorecard import get_scorecard
from penstockd.formats.pages import HTML, REPORT_FILES, REPORT_MEDIA
from penstockd.metering.scorecard import ScoredMetric
from penstockd.metering.scorecard_files import NAME
from penstockd.rpc.door import Route
from penstockd.rpc.exchange import Handler, ServedCall
from penstockd.rpc.hub.files import make_file_sender
from penstockd.rpc.routes import routes_of

_SERVICE = scorecard_pb2.DESCRIPTOR.services_by_name["Scorecards"]


def list_routes() -> Iterator[Route]:
    """The service's methods."""
    handlers: dict[str, Handler] = {
        "GetScorecard": _get_scorecard,
        "ExportScorecard": _export_scorecard,
    }
    yield from routes_of(_SERVICE, handlers, documents={"ExportScorecard"})


async def _get_scorecard(
    request: scorecard_pb2.GetScorecardRequest, call: ServedCall
) -> scorecard_pb2.Scorecard:
    found = await get_scorecard(call.hub, call, request.days)
    return scorecard_pb2.Scorecard(
        metrics=map(_metric_message, found.metrics),
        previous_start_time=found.previous_start,
        start_time=found.start,
        end_time=found.end,
    )


async def _export_scorecard(
    request: scorecard_pb2.ExportScorecardRequest, call: ServedCall
) -> None:
    form = call.exchange.pick_format(request.format, media=REPORT_MEDIA)
    file = REPORT_FILES[form]
    send = make_file_sender(
        call.exchange, NAME + file.suffix, file.content_type, shown=form == HTML
    )
    await export_scorecard(call.hub, call, request.days, form, send)


def _metric_message(scored: ScoredMetric) -> scorecard_pb2.ScorecardMetric:
    return scorecard_pb2.ScorecardMetric(**scored.document)
