"""Commands that follow changes: watch, and changes for one poll."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.client.cli.connection import As, Url, connect
from penstock.client.cli.failures import Failure, one_line
from penstock.client.cli.records import Fields, Filter, wrong_arguments

if TYPE_CHECKING:
    from penstock.client.change import Change, Position
    from penstock.client.client import Client
    from penstock.client.errors import PenstockError
    from penstock.client.feed import Batch, Feed

Datasets = Annotated[
    list[str] | None,
    typer.Argument(metavar="[DATASET]...", help="All that you may read, if none are given."),
]
Operations = Annotated[str, typer.Option(help="Which operations, with commas, as CREATED,DELETED.")]
IncludeBefore = Annotated[
    bool, typer.Option("--include-before", help="Give records as they were, too.")
]


class Shape(StrEnum):
    """How changes are printed: a line of JSON each, or a short line for people."""

    json = "json"
    table = "table"


Format = Annotated[Shape, typer.Option(help="How they are printed, a line each.")]


def register(app: typer.Typer) -> None:
    """Adds the commands to the app."""
    app.command()(watch)
    app.command()(changes)


def watch(
    datasets: Datasets = None,
    snapshot: Annotated[
        bool, typer.Option("--snapshot", help="Begin with all records as they are.")
    ] = False,
    cursor: Annotated[str, typer.Option(help="Begin after this cursor; by default, now.")] = "",
    cursor_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Remembers how far it has come, and goes on from there the next time.",
        ),
    ] = None,
    filter: Filter = "",
    fields: Fields = "",
    operations: Operations = "",
    include_before: IncludeBefore = False,
    limit: Annotated[
        int, typer.Option(min=0, help="End after so many changes; 0 is no limit.")
    ] = 0,
    format: Format = Shape.json,
    url: Url = "",
    consumer: As = "",
) -> None:
    """Print changes as they are committed, until Ctrl-C.

    With --cursor-file, what was printed is not printed again, and nothing is left out: the file is
    written when all of a batch has been. Only if the process is killed between the two does that
    batch come again.
    """
    place = _Place(cursor_file, cursor, snapshot)
    with connect(url, consumer) as client:
        feed = _feed(
            client,
            list(datasets or ()),
            {"filter": filter, "fields": fields},
            cursor=place.start,
            snapshot=snapshot and not place.start,
            operations=operations,
            include_before=include_before,
            on_break=_tell_break,
        )
        with feed, _ended_in_order(feed):
            _print_all(feed, place, limit, _printer(format))


def changes(
    datasets: Datasets = None,
    cursor: Annotated[str, typer.Option(help="After this cursor; see the last line.")] = "",
    wait: Annotated[float, typer.Option(min=0, max=30, help="Seconds to wait for changes.")] = 0,
    filter: Filter = "",
    fields: Fields = "",
    operations: Operations = "",
    include_before: IncludeBefore = False,
    limit: Annotated[int, typer.Option(min=0, max=5000, help="About so many at most.")] = 0,
    format: Format = Shape.json,
    url: Url = "",
    consumer: As = "",
) -> None:
    """Print the changes after a cursor, and on standard error the cursor to go on from.

    Without a cursor there are none, and the cursor is that of now.
    """
    names = list(datasets or ())
    asked: dict[str, Any] = {
        "wait": wait,
        "operations": operations,
        "page_size": limit,
        "include_before": include_before,
    }
    with connect(url, consumer) as client, wrong_arguments():
        if len(names) == 1:
            source = client.dataset(names[0])
            page = source.changes(cursor, filter=filter, fields=fields, **asked)
        else:
            _only_of_one(filter, fields)
            page = client.changes(names, cursor, **asked)
    printed = _printer(format)
    for change in page.changes:
        printed(change)
    sys.stdout.flush()
    typer.echo(f"cursor {page.cursor}{' more' if page.more else ''}", err=True)


def _feed(client: Client, names: list[str], narrowed: dict[str, Any], **asked: Any) -> Feed:
    with wrong_arguments():
        if len(names) == 1:
            return client.dataset(names[0]).watch(**narrowed, **asked)
        _only_of_one(**narrowed)
        return client.watch(names, **asked)


def _only_of_one(filter: str, fields: str) -> None:
    if filter or fields:
        raise Failure("--filter and --fields are for one dataset")


def _print_all(feed: Feed, place: _Place, limit: int, printed: Callable[[Change], None]) -> None:
    count = 0
    for batch in feed:
        if batch.begins_anew:
            typer.echo("the snapshot broke off and begins anew", err=True)
        given = batch.changes[: limit - count] if limit else batch.changes
        for change in given:
            printed(change)
        sys.stdout.flush()
        count += len(given)
        place.reached(batch, given)
        if limit and count >= limit:
            return


class _Place:
    """How far the command has come, in a file if there is one."""

    def __init__(self, file: Path | None, cursor: str, snapshot: bool) -> None:
        self._file = file
        self._position: Position | None = None
        kept = _kept(file) if file is not None else None
        if cursor and kept is not None:
            raise Failure(f"{file} says where to go on: leave --cursor out, or remove the file")
        if cursor and snapshot:
            raise Failure("a snapshot begins where it is taken: leave --cursor out")
        self._position = kept
        #: Where to begin: a position, a cursor, or "" for now.
        self.start: Position | str = kept or cursor

    def reached(self, batch: Batch, given: Iterable[Change]) -> None:
        """All of a batch, or its first changes, have been printed."""
        given = tuple(given)
        if len(given) == len(batch.changes):
            self._position = batch.position or self._position
        elif self._position is not None:
            self._position = self._position.behind(given)
        if self._file is not None and self._position is not None:
            _write(self._file, json.dumps(self._position.to_json()) + "\n")


def _kept(file: Path) -> Position | None:
    from penstock.client.change import Position

    try:
        return Position.from_json(json.loads(file.read_text("utf-8")))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise Failure(f"{file} is damaged: {error}") from None


def _write(file: Path, text: str) -> None:
    """Whole or not at all, whatever happens."""
    beside = file.with_name(f".{file.name}.new")
    with beside.open("w", encoding="utf-8") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    beside.replace(file)


def _printer(format: Shape) -> Callable[[Change], None]:
    if format is Shape.json:
        return lambda change: print(json.dumps(change.to_json(), ensure_ascii=False))
    return _print_short


def _print_short(change: Change) -> None:
    """Time, operation, dataset, key, and what has changed."""
    told = ", ".join(change.changed_fields)
    words = [
        f"{change.commit_time:%H:%M:%S.%f}"[:-3],
        f"{change.operation:<12}",
        change.dataset,
        one_line(change.key),
        told,
    ]
    print("  ".join(words).rstrip())


def _tell_break(error: PenstockError) -> None:
    typer.echo(f"{one_line(str(error))}; going on from the last checkpoint", err=True)


@contextmanager
def _ended_in_order(feed: Feed) -> Iterator[None]:
    """Ctrl-C and SIGTERM end the feed between two batches: what is printed is remembered."""

    def end(number: int, frame: object) -> None:
        feed.close()

    before = {s: signal.signal(s, end) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
