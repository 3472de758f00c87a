"""Commands of shapes: ``penstock shapes`` with create, preview, list, diff and others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from penstock.client.cli.connection import connect_client
from penstock.client.cli.failures import Failure
from penstock.client.cli.files import read_document
from penstock.client.cli.printing import (
    Column,
    document_of,
    print_document,
    print_outcome,
    print_rows,
)

T = TypeVar("T")

Name = Annotated[str, typer.Argument(metavar="SHAPE", help="The shape's id, such as crm-contacts.")]
File = Annotated[
    str,
    typer.Argument(
        metavar="FILE|NAME",
        help="The shape in JSON, or in TOML if the name ends in .toml; - reads JSON from "
        "standard input; or an example that comes with the client: crm-contacts, flat-orders, "
        "order-lines.",
    ),
]
Version = Annotated[int, typer.Option(min=0, help="Its version; 0 means the latest.")]


def register(app: typer.Typer) -> None:
    """Adds the group of commands to the app."""
    group = typer.Typer(
        help="Saved columns for one receiver: renamed, formatted, computed.", no_args_is_help=True
    )
    group.command("create")(create_shape)
    group.command("update")(update_shape)
    group.command("preview")(preview_shape)
    group.command("list")(list_shapes)
    group.command("get")(get_shape)
    group.command("diff")(compare_shapes)
    group.command("delete")(delete_shape)
    app.add_typer(group, name="shapes")


def create_shape(file: File) -> None:
    """Save a shape from a file."""
    shape = _read_file(file)
    with connect_client() as client:
        made = _in_form(lambda: client.shapes.create(shape))
    print_outcome(made, f"{made.shape_id}: version {made.version}")


def update_shape(file: File) -> None:
    """Save a new version of a shape from a file, which holds all columns."""
    shape = _read_file(file)
    with connect_client() as client:
        made = _in_form(lambda: client.shapes.update(shape))
    print_outcome(made, f"{made.shape_id}: version {made.version}")


def preview_shape(
    file: File,
    filter: Annotated[str, typer.Option("--filter", help="Filter (AIP-160).")] = "",
    rows: Annotated[int, typer.Option(min=1, max=100, help="The most records.")] = 10,
) -> None:
    """Show a few records in the columns of a file, without saving it."""
    shape = _read_file(file)
    with connect_client() as client:
        found = _in_form(lambda: client.shapes.preview_whole(shape, filter=filter, rows=rows))
    names = [column["name"] for column in shape.get("columns", ())]
    print_rows(_load_records(found.data), names)
    for name, problem in found.import_problems.items():
        what = f"the column '{name}' cannot be read back: {problem}" if name else problem
        typer.echo(f"import --shape would refuse it: {what}", err=True)


def list_shapes() -> None:
    """Print your shapes in their latest versions."""
    with connect_client() as client:
        found = client.shapes.latest()
    columns = Column("columns", lambda document: str(len(document.get("columns", ()))))
    rows = Column("rows.field")
    print_rows(found, ["shape_id", "version", "dataset", columns, rows, "title", "create_time"])


def get_shape(name: Name, version: Version = 0) -> None:
    """Print a shape, by default as JSON, in the form that create and update read."""
    with connect_client() as client:
        found = client.shapes.get(name, version)
    print_document(found)


def compare_shapes(
    name: Name,
    from_version: Annotated[
        int, typer.Option("--from", min=0, help="The earlier version; 0 means the one before.")
    ] = 0,
    to_version: Annotated[
        int, typer.Option("--to", min=0, help="The later version; 0 means the latest.")
    ] = 0,
) -> None:
    """Print the columns that differ between two versions of a shape.

    A line without a name says that the versions make rows of different lists.
    """
    with connect_client() as client:
        found = client.shapes.compare(name, from_version, to_version)
    rows = [document_of(difference) for difference in found.differences]
    sides = {"before": found.before_rows, "after": found.after_rows}
    if found.before_rows != found.after_rows:
        rows.insert(0, {"name": "", **{n: document_of(s) for n, s in sides.items() if s.field}})
    print_rows(
        rows,
        ["name", "from_position", "to_position", _side_column("before"), _side_column("after")],
    )


def delete_shape(name: Name) -> None:
    """Delete a shape with all its versions."""
    with connect_client() as client:
        client.shapes.delete(name)


def _read_file(name: str) -> dict[str, Any]:
    """The shape in a file, or one that comes with the client."""
    from importlib import resources

    shipped = resources.files("penstock.client") / "shape_files"
    with resources.as_file(shipped / f"{name}.toml") as file:
        if "/" not in name and not Path(name).exists() and file.is_file():
            return read_document(str(file), "shape")
    return read_document(name, "shape")


def _in_form(call: Callable[[], T]) -> T:
    """What a call returns. Raises Failure for a file that is no shape."""
    try:
        return call()
    except ValueError as error:
        raise Failure(str(error)) from None


def _load_records(data: bytes) -> list[dict[str, Any]]:
    import json

    found: list[dict[str, Any]] = json.loads(data)
    return found


def _side_column(path: str) -> Column:
    """How a version defines the column, without its name."""

    def show(document: Mapping[str, Any]) -> str:
        parts = {
            k: v for k, v in document.get(path, {}).items() if k != "name" and v not in ("", {})
        }
        return ", ".join(f"{k}={v}" for k, v in parts.items())

    return Column(path, show)
