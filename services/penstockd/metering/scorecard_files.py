"""Scorecards as files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from penstockd.formats.pages import (
    HTML,
    begin_page,
    end_page,
    name_in_json,
    name_in_xml,
    render_table,
    write_csv_row,
    write_time,
)
from penstockd.formats.record_xml import XML_DECLARATION, xml_of
from penstockd.metering.scorecard import Scorecard, ScoredMetric, Unit

#: The name of the files, without a suffix.
NAME = "scorecard"
_COLUMNS = {
    "title": "Metric",
    "scenario": "Measures",
    "target": "Target",
    "value": "Value",
    "previous_value": "Period before",
    "trend": "Trend",
    "met": "Target met",
    "samples": "Made of",
    "fresh_time": "Fresh to",
    "source": "Source",
    "how": "How it is computed",
}


def _describe_scorecard(scorecard: Scorecard) -> dict[str, Any]:
    return {
        "previous_start_time": scorecard.previous_start,
        "start_time": scorecard.start,
        "end_time": scorecard.end,
        "metrics": [{**m.document, "samples": str(m.figure.samples)} for m in scorecard.metrics],
    }


def _write_json(scorecard: Scorecard) -> str:
    return orjson.dumps(name_in_json(_describe_scorecard(scorecard))).decode() + "\n"


def _write_xml(scorecard: Scorecard) -> str:
    content = xml_of(name_in_xml(_describe_scorecard(scorecard)))
    return f"{XML_DECLARATION}\n<{NAME}>{content}</{NAME}>\n"


def _write_csv(scorecard: Scorecard) -> str:
    documents = [metric.document for metric in scorecard.metrics]
    rows = [documents[0], *(document.values() for document in documents)]
    return "".join(map(write_csv_row, rows))


def _write_page(scorecard: Scorecard) -> str:
    lines = (
        f"From {write_time(scorecard.start)} to {write_time(scorecard.end)}, beside the period"
        f" from {write_time(scorecard.previous_start)}.",
    )
    table = render_table("", _COLUMNS, [_show_metric(metric) for metric in scorecard.metrics])
    return begin_page("Scorecard", lines) + table + end_page()


def _show_metric(scored: ScoredMetric) -> dict[str, Any]:
    """The cells of a metric for people."""
    unit, document = scored.metric.unit, scored.document
    side = "at least" if document["target_side"] == "AT_LEAST" else "at most"
    met = {True: "yes", False: "no", None: ""}[scored.met]
    value = show_value(scored.figure.value, unit) or f"none: {scored.figure.absent}"
    return {
        **document,
        "target": f"{side} {show_value(scored.metric.target, unit)}",
        "value": value,
        "previous_value": show_value(scored.previous.value, unit) or "none",
        "trend": scored.trend.lower(),
        "met": met,
    }


def show_value(value: float | None, unit: Unit) -> str:
    """A value for people; "" if there is none."""
    if value is None:
        return ""
    return f"{value:.2%}" if unit is Unit.RATIO else f"{value:,.3g} s"


#: How a file is written, by the name of its format.
SCORECARDS: Mapping[str, Callable[[Scorecard], str]] = {
    "JSON": _write_json,
    "CSV": _write_csv,
    "XML": _write_xml,
    HTML: _write_page,
}
