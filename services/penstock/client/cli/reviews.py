"""Commands for those who must show how the hub does: ``access review`` and ``scorecard``."""

from __future__ import annotations

import enum
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from penstock.client.cli.connection import connect_client
from penstock.client.cli.printing import Column, print_rows

_COLUMNS = ("item", "dataset", "credential", "role", "may_see", "received", "surfaces")
#: The lists of a consumer in a review, and what their rows are called.
_LISTS = {
    "datasets": "dataset",
    "credentials": "credential",
    "unused_grants": "unused_grant",
    "denied": "denied",
}
_SECONDS = "SECONDS"


class ReviewForm(enum.StrEnum):
    """The formats of files of reviews."""

    json = "json"
    csv = "csv"
    xml = "xml"
    html = "html"


Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", help="A file, written only as a whole; - is standard output."),
]
FileForm = Annotated[
    ReviewForm,
    typer.Option("--file-format", help="The format of the file; html is a page to print."),
]


def register(app: typer.Typer) -> None:
    """Adds the commands to the app."""
    group = typer.Typer(help="Who may see what, and what they received.", no_args_is_help=True)
    group.callback()(_describe_group)
    group.command("review")(review_access)
    app.add_typer(group, name="access")
    app.command("scorecard")(show_scorecard)


def _describe_group() -> None:
    """Who may see what, and what they received."""


def review_access(
    consumer: Annotated[str, typer.Option(help="Only this consumer.")] = "",
    days: Annotated[
        int, typer.Option(min=1, max=3660, help="What was received and denied in so many days.")
    ] = 90,
    unused_days: Annotated[
        int, typer.Option(min=1, max=3660, help="Grants that nobody used for so many days.")
    ] = 90,
    form: FileForm = ReviewForm.json,
    output: Output = None,
) -> None:
    """Review access: what each consumer may see, what it received, and what nobody uses.

    Prints a table, or what --format says; with --output it writes a file. Takes the permissions
    access.read and audit.read.
    """
    with connect_client() as client:
        if output is not None:
            pieces = client.access.review(
                consumer, days=days, unused_days=unused_days, format=form.value
            )
            _write_file(output, pieces)
            return
        document = client.access.review_document(consumer, days=days, unused_days=unused_days)
    print_rows(
        [row for each in document["consumers"] for row in _list_rows(each)],
        ["consumer", *_COLUMNS, "last_use_time", "calls"],
    )


def show_scorecard(
    days: Annotated[
        int, typer.Option(min=1, max=366, help="The days of the period, today included.")
    ] = 30,
    form: FileForm = ReviewForm.json,
    output: Output = None,
) -> None:
    """Show the metrics by which the hub measures itself, beside the period before.

    Prints a table, or what --format says; with --output it writes a file. Takes the permission
    usage.read or audit.read.
    """
    from penstock.hub.v1 import scorecard_pb2 as api
    from penstock.hub.v1 import scorecard_pb2_grpc

    with connect_client() as client:
        stub = scorecard_pb2_grpc.ScorecardsStub(client.channel)
        if output is not None:
            request = api.ExportScorecardRequest(days=days, format=form.value)
            pieces = client.stream(stub.ExportScorecard, request)
            _write_file(output, (piece.data for piece in pieces))
            return
        found = client.call(stub.GetScorecard, api.GetScorecardRequest(days=days), safe=True)
    columns: list[str | Column] = [
        "metric", Column("value", _show_value), Column("previous_value", _show_previous), "trend",
        Column("target", _show_target), "met", "samples", "source", "absent_reason",
    ]  # fmt: skip
    print_rows(found.metrics, columns)


def _write_file(output: Path, pieces: Iterable[bytes]) -> None:
    from penstock.client.dataset import write_all
    from penstock.client.files import replace_file

    if str(output) == "-":
        write_all(pieces, sys.stdout.buffer)
        sys.stdout.buffer.flush()
        return
    with replace_file(output) as file:
        size = write_all(pieces, file)
    typer.echo(f"{output}: {size:,} bytes", err=True)


def _list_rows(consumer: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for the consumer, then one for each thing in its lists."""
    own = {key: value for key, value in consumer.items() if key not in _LISTS}
    rows: list[dict[str, Any]] = [{**own, "item": "consumer", "calls": own["denied_calls"]}]
    for place, item in _LISTS.items():
        rows += [{"consumer": own["consumer"], "item": item, **row} for row in consumer[place]]
    return rows


def _show_value(row: Mapping[str, Any]) -> str:
    return _show_number(row.get("value"), row["unit"])


def _show_previous(row: Mapping[str, Any]) -> str:
    return _show_number(row.get("previous_value"), row["unit"])


def _show_target(row: Mapping[str, Any]) -> str:
    side = "at least" if row["target_side"] == "AT_LEAST" else "at most"
    return f"{side} {_show_number(row['target'], row['unit'])}"


def _show_number(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    return f"{value:,.3g} s" if unit == _SECONDS else f"{value:.2%}"
