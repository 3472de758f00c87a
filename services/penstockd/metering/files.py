"""Reports of usage as files."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

import orjson

from penstockd.formats import WRITERS
from penstockd.formats.columns import import_arrow
from penstockd.formats.record_xml import XML_DECLARATION
from penstockd.metering.counting import UsageCounts
from penstockd.metering.report import UsageQuestion, UsageRow

#: The name of the files, without a suffix.
NAME = "usage"
_TIME, _RATE = "time", "error_rate"
#: The names in JSON of columns that have another one there.
_JSON_NAMES = {"error_rate": "errorRate", "field_class": "fieldClass"}


def list_columns(question: UsageQuestion) -> list[str]:
    """The columns of a report: what it is grouped by, in the order of the question, and numbers."""
    dimensions = question.dimensions
    groups = [name if name in dimensions else _TIME for name in question.group_by]
    return [*groups, "calls", "errors", _RATE, "records", "bytes"]


def write_report(form: str, question: UsageQuestion, rows: Sequence[UsageRow]) -> bytes:
    """A report as a file in one of FORMATS."""
    columns = list_columns(question)
    return FORMATS[form](columns, [_name_values(row, columns) for row in rows])


def name_file(form: str) -> str:
    """The name of a report's file."""
    return NAME + WRITERS[form].suffix


def find_content_type(form: str) -> str:
    """The media type of a format."""
    return WRITERS[form].content_type


def rate_errors(counts: UsageCounts) -> float:
    """Errors by calls; 0 without calls."""
    return counts.errors / counts.calls if counts.calls else 0.0


def _name_values(row: UsageRow, columns: Sequence[str]) -> dict[str, Any]:
    known = {_TIME: row.time, **row.values, **row.counts._asdict(), _RATE: rate_errors(row.counts)}
    return {name: known[name] for name in columns}


def _write_csv(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> bytes:
    output = io.StringIO()
    writer = csv.writer(output, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([_write_text(row[name]) for name in columns] for row in rows)
    return output.getvalue().encode()


def _write_xml(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> bytes:
    parts = [XML_DECLARATION, f"<{NAME}>"]
    for row in rows:
        values = "".join(f"<{name}>{escape(_write_text(row[name]))}</{name}>" for name in columns)
        parts.append(f"<row>{values}</row>")
    return "\n".join([*parts, f"</{NAME}>", ""]).encode()


def _write_json(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> bytes:
    return orjson.dumps([_name_in_json(row) for row in rows], option=orjson.OPT_APPEND_NEWLINE)


def _write_ndjson(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> bytes:
    return b"".join(
        orjson.dumps(_name_in_json(row), option=orjson.OPT_APPEND_NEWLINE) for row in rows
    )


def _write_parquet(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> bytes:
    arrow = import_arrow()
    kinds = {_TIME: arrow.timestamp("us", "UTC"), _RATE: arrow.float64()}
    kinds |= dict.fromkeys(UsageCounts._fields, arrow.int64())
    schema = arrow.schema([(name, kinds.get(name, arrow.string())) for name in columns])
    output = io.BytesIO()
    arrow.parquet.write_table(arrow.Table.from_pylist(list(rows), schema=schema), output)
    return output.getvalue()


def _name_in_json(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row as JSON of protobuf has it: whole numbers are texts."""
    return {
        _JSON_NAMES.get(name, name): value if isinstance(value, float) else _write_text(value)
        for name, value in row.items()
    }


def _write_text(value: Any) -> str:
    return value.strftime("%Y-%m-%dT%H:%M:%SZ") if hasattr(value, "strftime") else str(value)


#: How a file is written, by the name of its format.
FORMATS: Mapping[str, Callable[[Sequence[str], Sequence[Mapping[str, Any]]], bytes]] = {
    "JSON": _write_json,
    "NDJSON": _write_ndjson,
    "CSV": _write_csv,
    "XML": _write_xml,
    "PARQUET": _write_parquet,
}
