"""Commands on changes: watch, as they are committed, and changes, once."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from contextlib import closing
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.client.cli.connection import As, Url, connect_client
from penstock.client.cli.failures import Failure
from penstock.client.cli.records import Dataset, Fields, Filter

if TYPE_CHECKING:
    from penstock.client.change import Change
    from penstock.client.cli.cursor_file import CursorFile
    from penstock.client.client import Client
    from penstock.client.errors import PenstockError
    from penstock.client.feed import Feed

Datasets = Annotated[list[str], typer.Argument(metavar="DATASET...", help="One, or several.")]
Operations = Annotated[
    str, typer.Option("--operations", help="Only these, with commas, as CREATED,DELETED.")
]
IncludeBefore = Annotated[
    bool, typer.Option("--include-before", help="Show records as they were before, too.")
]
Cursor = Annotated[str, typer.Option(help="Where to begin, as a checkpoint or receipt has it.")]


class Print(StrEnum):
    """How changes are printed."""

    table = "table"
    json = "json"


Format = Annotated[Print, typer.Option(help="Lines for people, or one JSON document a line.")]


def register(app: typer.Typer) -> None:
    """Adds the commands to the app."""
    app.command("watch")(watch_changes)
    app.command("changes")(print_changes)


def watch_changes(
    datasets: Datasets,
    snapshot: Annotated[
        bool, typer.Option("--snapshot", help="Begin with all records as they are.")
    ] = False,
    cursor: Cursor = "",
    cursor_file: Annotated[
        Path | None,
        typer.Option(help="Remembers how far it has come: the next time it goes on there."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="Appends to this file. With --cursor-file what a kill left unfinished is cut off.",
        ),
    ] = None,
    filter: Filter = "",
    fields: Fields = "",
    operations: Operations = "",
    include_before: IncludeBefore = False,
    format: Format = Print.table,
    url: Url = "",
    consumer: As = "",
) -> None:
    """Print changes as they are committed, until Ctrl-C.

    With --cursor-file, stopping and starting again loses nothing and prints nothing twice; a
    kill -9 can repeat the batch that was being printed, unless it goes to --output.
    """
    from penstock.client.cli.cursor_file import CursorFile
    from penstock.client.cli.gate import Gate

    if (filter or fields) and len(datasets) > 1:
        raise Failure("--filter and --fields are for one dataset")
    place = CursorFile(cursor_file, output)
    with connect_client(url, consumer) as client, place, Gate() as gate:
        begin: dict[str, Any] = {"cursor": cursor, "snapshot": snapshot}
        if place.position is not None:
            begin = {"cursor": place.position}
        options = {"operations": operations, "include_before": include_before}
        narrowed = {"filter": filter, "fields": fields}
        feed = _open_feed(client, datasets, narrowed, **begin, **options, on_break=_tell_break)
        _print_all(feed, place, gate, format, fields)


def print_changes(
    dataset: Dataset,
    cursor: Cursor = "",
    wait: Annotated[str, typer.Option(help="How long to wait for the first, as 20s.")] = "0s",
    filter: Filter = "",
    fields: Fields = "",
    operations: Operations = "",
    include_before: IncludeBefore = False,
    format: Format = Print.table,
    url: Url = "",
    consumer: As = "",
) -> None:
    """Print the changes after a cursor, and the cursor to continue from.

    Without --cursor there are no changes, and the cursor is the current one. It is the last line of
    standard error.
    """
    seconds = _parse_seconds(wait)
    with connect_client(url, consumer) as client:
        source = client.dataset(dataset)
        while True:
            try:
                page = source.changes(
                    cursor,
                    wait=seconds,
                    filter=filter,
                    fields=fields,
                    operations=operations,
                    include_before=include_before,
                )
            except ValueError as error:
                raise Failure(str(error)) from None
            _write_changes(sys.stdout, page.changes, format, fields)
            cursor, seconds = page.cursor, 0.0
            if not page.more:
                break
    typer.echo(f"cursor {cursor}", err=True)


def _open_feed(
    client: Client, datasets: list[str], narrowed: dict[str, Any], **options: Any
) -> Feed:
    try:
        if len(datasets) == 1:
            return client.dataset(datasets[0]).watch(**narrowed, **options)
        return client.watch(datasets, **options)
    except ValueError as error:
        raise Failure(str(error)) from None


def _print_all(feed: Feed, place: CursorFile, gate: Any, format: Print, fields: str) -> None:
    """Prints each batch, then remembers it; a signal waits until both are done."""
    from penstock.client.errors import FeedEnded

    try:
        with feed, closing(iter(feed)) as batches:
            for batch in batches:
                if batch.begins_anew:
                    raise Failure(
                        "the snapshot broke off: what was printed of it is void; start again"
                    )
                with gate.closed():
                    _write_changes(place.output, batch.changes, format, fields)
                    if batch.position is not None:
                        place.remember(batch.position)
    except FeedEnded as ended:
        if place.path is None or ended.reconcile != "REPAIR":
            raise
        raise Failure(
            f"{ended.message}: remove {place.path} and start again with --snapshot"
        ) from None


def _write_changes(file: Any, found: Iterable[Change], format: Print, fields: str) -> None:
    show = _document_of if format is Print.json else _line_of
    file.writelines(show(change, fields) + "\n" for change in found)
    file.flush()


def _document_of(change: Change, fields: str) -> str:
    from penstock.client.record import to_dict

    paths = fields.split(",")
    said: dict[str, Any] = {
        "sequence": change.sequence,
        "operation": change.operation,
        "dataset": change.dataset,
        "key": change.key,
    }
    if change.before is not None:
        said["before"] = to_dict(change.before, paths)
    if change.after is not None:
        said["after"] = to_dict(change.after, paths)
    if change.changed_fields:
        said["changedFields"] = list(change.changed_fields)
    said["transactionId"] = change.transaction_id
    said["commitTime"] = _format_time(change)
    return json.dumps(said, ensure_ascii=False)


def _line_of(change: Change, fields: str) -> str:
    """A change for people: tab-separated columns, which ``cut`` can split."""
    from penstock.client.cli.failures import one_line
    from penstock.client.record import to_dict

    what = ", ".join(change.changed_fields)
    if not what and change.after is not None:
        shown = to_dict(change.after, fields.split(","))
        what = json.dumps(shown, ensure_ascii=False)
    elif change.after is not None:
        what = json.dumps(to_dict(change.after, change.changed_fields), ensure_ascii=False)
    head = (_format_time(change), f"{change.operation:<12}", change.dataset, one_line(change.key))
    return "\t".join((*head, one_line(what)))


def _format_time(change: Change) -> str:
    return change.commit_time.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _tell_break(error: PenstockError) -> None:
    typer.echo(f"{error}; going on when the hub is there", err=True)


def _parse_seconds(text: str) -> float:
    try:
        seconds = float(text.strip().removesuffix("s"))
    except ValueError:
        raise Failure(f"'{text}' is no time, as 20s") from None
    return seconds
