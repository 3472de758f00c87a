"""Commands on changes: watch, as they are committed, and changes, once."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.client.cli.connection import connect_client
from penstock.client.cli.failures import Failure
from penstock.client.cli.options import Format, chosen_format
from penstock.client.cli.printing import Column, RowPrinter
from penstock.client.cli.records import Dataset, Fields, Filter

if TYPE_CHECKING:
    from penstock.client.change import Change
    from penstock.client.cli.cursor_file import CursorFile
    from penstock.client.client import Client
    from penstock.client.errors import PenstockError
    from penstock.client.feed import Feed

Datasets = Annotated[list[str], typer.Argument(metavar="DATASET...", help="One or more datasets.")]
Operations = Annotated[
    str, typer.Option("--operations", help="Only these operations, such as CREATED,DELETED.")
]
IncludeBefore = Annotated[
    bool,
    typer.Option("--include-before", help="Also show each record as it was before the change."),
]
Shapes = Annotated[
    list[str] | None,
    typer.Option(
        "--shape",
        metavar="SHAPE",
        help="Show records in the columns of this shape (its id, or id@version); one for each"
        " dataset.",
    ),
]
Cursor = Annotated[str, typer.Option(help="Where to begin: the cursor of a checkpoint or receipt.")]


def register(app: typer.Typer) -> None:
    """Adds the commands to the app."""
    app.command("watch")(watch_changes)
    app.command("changes")(print_changes)


def watch_changes(
    datasets: Datasets,
    snapshot: Annotated[
        bool, typer.Option("--snapshot", help="Begin with all records as they are now.")
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
    shape: Shapes = None,
    operations: Operations = "",
    include_before: IncludeBefore = False,
) -> None:
    """Print changes as they are committed, until Ctrl-C.

    With --cursor-file, stopping and starting again loses nothing and prints nothing twice; a
    kill -9 can repeat the batch that was being printed, unless it goes to --output.
    """
    from penstock.client.cli.cursor_file import CursorFile
    from penstock.client.cli.gate import SignalGate

    if (filter or fields) and len(datasets) > 1:
        raise Failure("--filter and --fields are for one dataset")
    place = CursorFile(cursor_file, output)
    with connect_client() as client, place, SignalGate() as gate:
        begin: dict[str, Any] = {"cursor": cursor, "snapshot": snapshot}
        if place.position is not None:
            begin = {"cursor": place.position}
        options: dict[str, Any] = {"operations": operations, "include_before": include_before}
        narrowed = {"filter": filter, "fields": fields}
        options |= begin | {"on_break": _tell_break}
        feed = _open_feed(client, datasets, narrowed, shape or [], **options)
        _print_all(feed, place, gate, fields)


def print_changes(
    dataset: Dataset,
    cursor: Cursor = "",
    wait: Annotated[
        str, typer.Option(help="How long to wait for the first change, such as 20s.")
    ] = "0s",
    filter: Filter = "",
    fields: Fields = "",
    shape: Annotated[
        str,
        typer.Option(help="Show records in the columns of this shape (its id, or id@version)."),
    ] = "",
    operations: Operations = "",
    include_before: IncludeBefore = False,
) -> None:
    """Print the changes after a cursor, and the cursor to continue from.

    Without --cursor there are no changes, and the cursor is the current one. It is the last line of
    standard error.
    """
    seconds = seconds_of(wait)
    printer = change_printer(sys.stdout)
    with connect_client() as client:
        source = client.dataset(dataset)
        while True:
            try:
                page = source.changes(
                    cursor,
                    wait=seconds,
                    filter=filter,
                    fields=fields,
                    shape=shape,
                    operations=operations,
                    include_before=include_before,
                )
            except ValueError as error:
                raise Failure(str(error)) from None
            printer.write(change_document(c, fields) for c in page.changes)
            cursor, seconds = page.cursor, 0.0
            if not page.more:
                break
    typer.echo(f"cursor {cursor}", err=True)


def _open_feed(
    client: Client,
    datasets: list[str],
    narrowed: dict[str, Any],
    shapes: list[str],
    **options: Any,
) -> Feed:
    try:
        if len(datasets) == 1 and len(shapes) <= 1:
            shape = "".join(shapes)
            return client.dataset(datasets[0]).watch(**narrowed, shape=shape, **options)
        return client.watch(datasets, shapes=shapes, **options)
    except ValueError as error:
        raise Failure(str(error)) from None


def _print_all(feed: Feed, place: CursorFile, gate: Any, fields: str) -> None:
    """Prints each batch, then remembers it; a signal waits until both are done."""
    from penstock.client.errors import FeedEnded

    printer = change_printer(place.output)
    try:
        with feed, closing(iter(feed)) as batches:
            for batch in batches:
                if batch.begins_anew:
                    raise Failure(
                        "the snapshot broke off: what was printed of it is void; start again"
                    )
                with gate.closed():
                    printer.write(change_document(c, fields) for c in batch.changes)
                    if batch.position is not None:
                        place.remember(batch.position)
    except FeedEnded as ended:
        if place.path is None or ended.reconcile != "REPAIR":
            raise
        raise Failure(
            f"{ended.message}: remove {place.path} and start again with --snapshot"
        ) from None


def change_printer(file: Any, default: Format = Format.table) -> RowPrinter:
    """The printer of changes; its lines for people are tab-separated, for ``cut``."""
    columns = [
        Column("commit_time"),
        Column("operation", lambda change: f"{change['operation']:<12}"),
        Column("dataset"),
        Column("key"),
        Column("changed_fields", _what_changed),
    ]
    return RowPrinter(columns, file, chosen_format(default))


def change_document(change: Change, fields: str = "") -> dict[str, Any]:
    """The document of a change, by the names of the model."""
    from penstock.client.record_data import to_dict

    paths = fields.split(",")
    said: dict[str, Any] = {
        "sequence": change.sequence,
        "operation": change.operation,
        "dataset": change.dataset,
        "key": change.key,
    }
    if change.before is not None:
        said["before"] = to_dict(change.before, paths, model_names=True)
    if change.after is not None:
        said["after"] = to_dict(change.after, paths, model_names=True)
    if change.shaped_before is not None:
        said["shaped_before"] = change.shaped_before
    if change.shaped is not None:
        said["shaped"] = change.shaped
    if change.changed_fields:
        said["changed_fields"] = list(change.changed_fields)
    said["transaction_id"] = change.transaction_id
    said["commit_time"] = change.commit_time.isoformat(timespec="microseconds").replace(
        "+00:00", "Z"
    )
    return said


def _what_changed(change: Mapping[str, Any]) -> str:
    """The values of the changed fields, or of all fields, in JSON; "" if the record is gone."""
    changed = change.get("changed_fields")
    if (shaped := change.get("shaped")) is not None:
        values = {name: shaped[name] for name in changed or shaped}
        return json.dumps(values, ensure_ascii=False)
    if (after := change.get("after")) is None:
        return ", ".join(changed or ())
    if changed is not None:
        values = {path: Column(path).value(after) for path in changed}
        return json.dumps(values, ensure_ascii=False)
    return json.dumps(after, ensure_ascii=False)


def _tell_break(error: PenstockError) -> None:
    typer.echo(f"{error}; retrying until the hub answers", err=True)


def seconds_of(text: str) -> float:
    """Seconds from an option such as 20s or 20. Raises Failure."""
    try:
        return float(text.strip().removesuffix("s"))
    except ValueError:
        raise Failure(f"'{text}' is not a duration such as 20s") from None
