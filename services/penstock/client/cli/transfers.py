"""Commands on whole datasets: export and import."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.client.cli.connection import As, Url, connect
from penstock.client.cli.failures import Failure
from penstock.client.cli.records import Dataset, Fields, Filter, OrderBy

if TYPE_CHECKING:
    from penstock.client.cli.progress import Bar
    from penstock.client.client import Client
    from penstock.client.dataset import Counts
    from penstock.client.mapping.errors import BadRow

Format = Annotated[
    str, typer.Option("--format", help="csv, json, ndjson or xml; by default as the file's name.")
]


def register(app: typer.Typer) -> None:
    """Adds the commands to the app."""
    app.command()(export)
    app.command("import")(import_)


def export(
    dataset: Dataset,
    format: Format = "",
    filter: Filter = "",
    order_by: OrderBy = "",
    fields: Fields = "",
    limit: Annotated[int, typer.Option(min=0, help="Records in all; 0 is no limit.")] = 0,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A file, whole or not at all; - is standard output."),
    ] = None,
    url: Url = "",
    consumer: As = "",
) -> None:
    """Write records to standard output or a file.

    All of them, of one consistent state, unless --filter or --limit says otherwise.
    """
    from penstock.client.cli.progress import Bar, row_counter

    to_file = output is not None and str(output) != "-"
    name = (format or _suffix_format(output) or "csv").upper()
    with connect(url, consumer) as client:
        chunks = client.dataset(dataset).export(
            name, filter=filter, order_by=order_by, fields=fields, limit=limit
        )
        # A bar would run through what is written to the same terminal.
        shown = sys.stderr.isatty() and (to_file or not sys.stdout.isatty())
        with Bar(f"export {dataset}", shown=shown) as bar:
            size = _write(_counted(chunks, bar, row_counter(name)), output if to_file else None)
    if to_file:
        rows = f"{bar.rows:,} rows, " if bar.rows is not None else ""
        typer.echo(f"{output}: {rows}{size:,} bytes", err=True)


def import_(
    dataset: Annotated[
        str, typer.Argument(metavar="DATASET|FOLDER", help="As customers; with --mapping a folder.")
    ] = "",
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="CSV, NDJSON or JSON; - is standard input."),
    ] = None,
    format: Format = "",
    mapping: Annotated[
        str,
        typer.Option(help="A mapping file, or the name of one that comes along, as northwind."),
    ] = "",
    url: Url = "",
    consumer: As = "",
) -> None:
    """Create or replace records from a file.

    If a row is bad, nothing is loaded, and the bad rows are shown.
    """
    if mapping:
        if file is not None or format:
            raise typer.BadParameter("with --mapping there is only a folder to give")
        _import_mapped(mapping, Path(dataset or "."), url, consumer)
        return
    if not dataset or file is None:
        raise typer.BadParameter("give a dataset and a file, or --mapping and a folder")
    _import_file(dataset, file, format, url, consumer)


def _import_file(dataset: str, file: Path, format: str, url: str, consumer: str) -> None:
    from penstock.client.cli.progress import Bar
    from penstock.client.errors import PenstockError

    name = format or _suffix_format(file)
    if not name:
        raise Failure(f"the name '{file}' does not tell the format: give --format")
    from_stdin = str(file) == "-"
    with (
        nullcontext(sys.stdin.buffer) if from_stdin else open(file, "rb") as source,
        connect(url, consumer) as client,
        Bar(f"import {dataset}", total=None if from_stdin else file.stat().st_size) as bar,
    ):
        try:
            counts = client.dataset(dataset).import_(source, name, progress=bar.sent)
        except PenstockError as error:
            rows = None if error.reason != "IMPORT_ROW_INVALID" else _violations(error)
            if rows is None:
                raise
            bar.stop()
            _report_bad(("row", "field", "reason"), rows, int(error.metadata.get("bad_rows", 0)))
    _report(dataset, counts)


def _import_mapped(mapping: str, folder: Path, url: str, consumer: str) -> None:
    from penstock.client.mapping.errors import MappingError
    from penstock.client.mapping.load import bind, load, unused
    from penstock.client.mapping.plan import load_plan

    try:
        sources = bind(load_plan(mapping), folder)
        for column in unused(sources):
            typer.echo(f"not taken over: {column}", err=True)
        with connect(url, consumer) as client:
            _load(client, lambda progress: load(client, sources, progress))
    except MappingError as error:
        raise Failure(str(error)) from None


def _load(client: Client, load: Callable[[Any], Iterator[Any]]) -> None:
    from penstock.client.cli.progress import Bar
    from penstock.client.mapping.errors import BadRows

    with Bar("import", unit="rows") as bar:

        def progress(dataset: str, rows: int) -> None:
            bar.describe(f"import {dataset}")
            bar.sent(rows)

        try:
            for loaded in load(progress):
                _report(loaded.dataset, loaded.counts)
        except BadRows as error:
            bar.stop()
            rows = [[_place(row), row.field, row.reason] for row in error.rows]
            _report_bad((error.dataset, "field", "reason"), rows, error.total)


def _report(dataset: str, counts: Counts) -> None:
    typer.echo(
        f"{dataset}: {counts.rows:,} rows: {counts.created:,} created, "
        f"{counts.updated:,} updated, {counts.unchanged:,} unchanged"
    )


def _report_bad(titles: tuple[str, ...], rows: list[list[str]], total: int) -> None:
    """Shows the bad rows on standard error and fails."""
    from penstock.client.cli.tables import print_table

    print_table(titles, rows, err=True)
    total = max(total, len({row[0] for row in rows}))
    raise Failure(f"{total:,} bad {'row' if total == 1 else 'rows'}; nothing was loaded")


def _violations(error: Any) -> list[list[str]]:
    """The violations of an import as row, field and reason, "rows[7].name" being row 7."""
    table = []
    for violation in error.violations:
        row, _, field = violation.field.partition(".")
        number = row.removeprefix("rows[").removesuffix("]")
        table.append([number, field, violation.description])
    return table


def _place(row: BadRow) -> str:
    return f"{row.file}:{row.line}" if row.line else row.file


def _suffix_format(path: Path | None) -> str:
    """The format that the name tells, "" if it does not."""
    from penstock.client.files import format_of

    try:
        return format_of(path) if path is not None else ""
    except ValueError:
        return ""


def _counted(
    chunks: Iterator[bytes], bar: Bar, count: Callable[[bytes], int] | None
) -> Iterator[bytes]:
    size = 0
    for chunk in chunks:
        yield chunk
        size += len(chunk)
        if count is not None:
            bar.rows = (bar.rows or 0) + count(chunk)
        bar.sent(size)


def _write(chunks: Iterator[bytes], output: Path | None) -> int:
    from penstock.client.dataset import write_all
    from penstock.client.files import replacing

    if output is not None:
        with replacing(output) as file:
            return write_all(chunks, file)
    size = write_all(chunks, sys.stdout.buffer)
    sys.stdout.buffer.flush()
    return size
