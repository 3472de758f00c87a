"""Commands on whole datasets: export and import."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penstock.client.cli.connection import connect_client
from penstock.client.cli.failures import Failure
from penstock.client.cli.options import Format as OutputFormat
from penstock.client.cli.options import given_option
from penstock.client.cli.printing import Column, print_document, print_outcome, print_rows
from penstock.client.cli.records import (
    Dataset,
    Fields,
    Filter,
    OrderBy,
    RequestId,
    ValidateOnly,
)

if TYPE_CHECKING:
    from penstock.client.cli.progress import Bar
    from penstock.client.client import Client
    from penstock.client.dataset import Counts
    from penstock.client.export import Export
    from penstock.client.mapping.errors import BadRow

Compression = Annotated[
    str, typer.Option(help="gzip or zstd; by default as the file's name, .gz or .zst.")
]
Format = Annotated[
    str,
    typer.Option(
        "--format",
        help="csv, json, ndjson, xml, parquet, arrow or xlsx; by default as the file's name.",
    ),
]


def register(app: typer.Typer) -> None:
    """Adds the commands to the app."""
    app.command("export")(export_records)
    app.command("receipt")(show_receipt)
    app.command("import")(import_records)


def export_records(
    dataset: Dataset,
    format: Format = "",
    filter: Filter = "",
    order_by: OrderBy = "",
    fields: Fields = "",
    limit: Annotated[
        int, typer.Option(min=0, help="The most records to return; 0 means no limit.")
    ] = 0,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="A file, written only as a whole; - is standard output."
        ),
    ] = None,
    compression: Compression = "",
    spreadsheet_safe: Annotated[
        bool,
        typer.Option(
            "--spreadsheet-safe", help="Escape cells that a spreadsheet would run as formulas."
        ),
    ] = False,
    bom: Annotated[
        bool | None,
        typer.Option(
            "--bom/--no-bom",
            help="Begin CSV with a byte order mark, by which Excel recognises UTF-8.",
        ),
    ] = None,
    nested: Annotated[
        str, typer.Option(help="json: lists and maps in Parquet and Arrow as text in JSON.")
    ] = "",
    shape: Annotated[
        str, typer.Option(help="One of your shapes, such as crm or crm@2, for its columns.")
    ] = "",
) -> None:
    """Write records to standard output or a file.

    By default all records, in one consistent state; --filter and --limit select. If the connection
    breaks, the export resumes where it broke off. It succeeds only if the hub's receipt matches
    every byte that has arrived.
    """
    from penstock.client.files import compression_of

    target = output if str(output) != "-" else None
    name = (format or _suffix_format(output) or given_option("format") or "csv").upper()
    packed = compression or (compression_of(output) if output is not None else "")
    with connect_client() as client:
        begin = functools.partial(
            client.dataset(dataset).export,
            name,
            filter=filter,
            order_by=order_by,
            fields=fields,
            limit=limit,
            compression=packed,
            spreadsheet_safe=spreadsheet_safe,
            bom=bom,
            nested=nested,
            shape=shape,
        )
        size, found = _write_export(begin, dataset, "" if packed else name, target)
    if target is not None and found is not None:
        typer.echo(_describe_export(target, size, found), err=True)


def _describe_export(output: Path, size: int, found: Any) -> str:
    """The message about an export into a file."""
    rows = f"{found.row_count:,} row{'' if found.row_count == 1 else 's'}"
    return f"{output}: {rows}, {size:,} bytes, receipt {found.receipt_id}"


def _write_export(
    begin: Callable[[], Export], dataset: str, kind: str, file: Path | None
) -> tuple[int, Any]:
    """Writes an export to a file or to standard output; returns its bytes and its receipt.

    A bar counts the rows of the format ``kind``, none if that is "".
    """
    from penstock.client.cli.gate import SignalGate
    from penstock.client.cli.progress import Bar, row_counter

    exports: list[Export] = []

    def start() -> Iterator[bytes]:
        exports.append(begin())
        return _count_progress(gate.each(exports[-1]), bar, row_counter(kind) if kind else None)

    # A bar would garble output on the same terminal.
    shown = sys.stderr.isatty() and (file is not None or not sys.stdout.isatty())
    with SignalGate() as gate, Bar(f"export {dataset}", shown=shown) as bar:
        size = _write_chunks(start, file)
    return size, exports[-1].receipt


def show_receipt(
    receipt_id: Annotated[
        str, typer.Argument(metavar="ID", help="The receipt's id, as export shows it.")
    ],
) -> None:
    """Print the receipt of an export: its outcome, rows, bytes and SHA-256."""
    with connect_client() as client:
        found = client.receipt(receipt_id)
    print_document(found)


def import_records(
    dataset: Annotated[
        str,
        typer.Argument(
            metavar="DATASET|FOLDER",
            help="The dataset, such as customers; with --mapping a folder.",
        ),
    ] = "",
    file: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="A file; - is standard input."),
    ] = None,
    format: Format = "",
    mapping: Annotated[
        str,
        typer.Option(help="A mapping file, or the name of an included one, such as northwind."),
    ] = "",
    partial: Annotated[
        bool,
        typer.Option(
            "--partial", help="Load the valid rows; fail nevertheless if any row is invalid."
        ),
    ] = False,
    validate_only: ValidateOnly = False,
    request_id: RequestId = "",
    delimiter: Annotated[
        str,
        typer.Option(
            help="What parts the cells of CSV: comma, semicolon, tab or pipe; by default as the "
            "header shows."
        ),
    ] = "",
    time_zone: Annotated[
        str,
        typer.Option(help="The zone of times that name none, such as Europe/Berlin or +02:00."),
    ] = "",
    ignore_unknown: Annotated[
        bool,
        typer.Option("--ignore-unknown", help="Ignore columns and members that no field has."),
    ] = False,
    preview: Annotated[
        bool,
        typer.Option(
            "--preview",
            help="Show how each column is understood and what would be refused; write nothing.",
        ),
    ] = False,
    shape: Annotated[
        str,
        typer.Option(
            metavar="SHAPE",
            help="The file has the columns of this shape (its id, or id@version), which are read"
            " back; other fields keep their values.",
        ),
    ] = "",
    time_precision: Annotated[
        str,
        typer.Option(
            metavar="truncate",
            help="truncate: cut off the digits of a second after the sixth; by default, times that"
            " have more are refused.",
        ),
    ] = "",
    report: Annotated[
        OutputFormat, typer.Option(help="How the result is printed; --format is the file's.")
    ] = OutputFormat.table,
) -> None:
    """Create or replace records from a file.

    If a row is bad, nothing is loaded, and the bad rows are shown.
    """
    how = {
        "partial": partial,
        "validate_only": validate_only,
        "request_id": request_id,
        "delimiter": delimiter,
        "time_zone": time_zone,
        "ignore_unknown": ignore_unknown,
        "preview": preview,
        "shape": shape,
        "time_precision": time_precision,
    }
    if mapping:
        if file is not None or format or any(how.values()):
            raise typer.BadParameter("--mapping takes only a folder")
        _import_mapped(mapping, Path(dataset or "."), report)
        return
    if not dataset or file is None:
        raise typer.BadParameter("give a dataset and a file, or --mapping and a folder")
    _import_file(dataset, file, format, how, report)


def _import_file(
    dataset: str, file: Path, format: str, how: dict[str, Any], report: OutputFormat
) -> None:
    from penstock.client.cli.progress import Bar
    from penstock.client.errors import PenstockError

    name = format or _suffix_format(file) or given_option("format")
    if not name:
        raise Failure(f"the name '{file}' does not show the format: give --format")
    from_stdin = str(file) == "-"
    with (
        nullcontext(sys.stdin.buffer) if from_stdin else open(file, "rb") as source,
        connect_client() as client,
        Bar(f"import {dataset}", total=None if from_stdin else file.stat().st_size) as bar,
    ):
        try:
            counts = client.dataset(dataset).import_(source, name, progress=bar.sent, **how)
        except PenstockError as error:
            rows = None if error.reason != "IMPORT_ROW_INVALID" else _violation_rows(error)
            if rows is None:
                raise
            bar.stop()
            _report_bad(("row", "field", "reason"), rows, int(error.metadata.get("bad_rows", 0)))
    if counts.columns:
        _print_columns(counts.columns, report)
    else:
        _print_counts(dataset, counts, report)
    for name, values in counts.ignored.items():
        typer.echo(f"ignored: {name} ({values:,} values)", err=True)
    if counts.refused:
        told = [[str(e.row), e.field, e.description] for e in counts.row_errors]
        what = "checked" if how["validate_only"] or how["preview"] else "loaded"
        _report_bad(("row", "field", "reason"), told, counts.refused, f"the others were {what}")


def _import_mapped(mapping: str, folder: Path, report: OutputFormat) -> None:
    from penstock.client.mapping.errors import MappingError
    from penstock.client.mapping.load import bind_sources, load_sources, unused_columns
    from penstock.client.mapping.plan import load_plan

    try:
        sources = bind_sources(load_plan(mapping), folder)
        for column in unused_columns(sources):
            typer.echo(f"not imported: {column}", err=True)
        with connect_client() as client:
            _load_files(client, lambda progress: load_sources(client, sources, progress), report)
    except MappingError as error:
        raise Failure(str(error)) from None


def _load_files(client: Client, load: Callable[[Any], Iterator[Any]], report: OutputFormat) -> None:
    from penstock.client.cli.progress import Bar
    from penstock.client.mapping.errors import BadRows

    with Bar("import", unit="rows") as bar:

        def progress(dataset: str, rows: int) -> None:
            bar.describe(f"import {dataset}")
            bar.sent(rows)

        try:
            for loaded in load(progress):
                _print_counts(loaded.dataset, loaded.counts, report)
        except BadRows as error:
            bar.stop()
            rows = [[_format_place(row), row.field, row.reason] for row in error.rows]
            _report_bad((error.dataset, "field", "reason"), rows, error.total)


def _print_columns(columns: Sequence[Any], form: OutputFormat) -> None:
    """Prints how an import understands the columns of its file."""
    names = ("column", "field", "type", "values", "refused", "note")
    rows = [(c.name, c.field, c.type, list(c.values), c.refused_count, c.note) for c in columns]
    documents = [dict(zip(names, row, strict=True)) for row in rows]
    values = Column("values", lambda document: " | ".join(document["values"]))
    print_rows(documents, [values if n == "values" else n for n in names], form=form)


def _print_counts(dataset: str, counts: Counts, form: OutputFormat) -> None:
    numbers = ("rows", "created", "updated", "unchanged", "refused")
    print_outcome(
        {"dataset": dataset} | {name: getattr(counts, name) for name in numbers},
        f"{dataset}: {counts.rows:,} rows: {counts.created:,} created, "
        f"{counts.updated:,} updated, {counts.unchanged:,} unchanged",
        form,
    )


def _report_bad(
    titles: tuple[str, ...], rows: list[list[str]], total: int, rest: str = "nothing was loaded"
) -> None:
    """Shows the bad rows on standard error and fails."""
    from penstock.client.cli.tables import print_table

    print_table(titles, rows, err=True)
    total = max(total, len({row[0] for row in rows}))
    raise Failure(f"{total:,} bad {'row' if total == 1 else 'rows'}; {rest}")


def _violation_rows(error: Any) -> list[list[str]]:
    """The violations of an import as row, field and reason, "rows[7].name" being row 7."""
    table = []
    for violation in error.violations:
        row, _, field = violation.field.partition(".")
        number = row.removeprefix("rows[").removesuffix("]")
        table.append([number, field, violation.description])
    return table


def _format_place(row: BadRow) -> str:
    return f"{row.file}:{row.line}" if row.line else row.file


def _suffix_format(path: Path | None) -> str:
    """The format of the file name's suffix, "" if it names none."""
    from penstock.client.files import format_of

    try:
        return format_of(path) if path is not None else ""
    except ValueError:
        return ""


def _count_progress(
    chunks: Iterator[bytes], bar: Bar, count: Callable[[bytes], int] | None
) -> Iterator[bytes]:
    size, bar.rows = 0, None
    for chunk in chunks:
        yield chunk
        size += len(chunk)
        if count is not None:
            bar.rows = (bar.rows or 0) + count(chunk)
        bar.sent(size)


def _write_chunks(start: Callable[[], Iterator[bytes]], output: Path | None) -> int:
    from penstock.client.dataset import write_all, write_whole
    from penstock.client.files import replace_file

    if output is not None:
        with replace_file(output) as file:
            return write_whole(start, file)
    size = write_all(start(), sys.stdout.buffer)
    sys.stdout.buffer.flush()
    return size
