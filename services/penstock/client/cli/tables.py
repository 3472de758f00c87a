"""Tables as drawn on a terminal, and the columns of records in them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from penstock.client.cli.failures import Failure, one_line


def columns_of(record_class: Any, paths: Sequence[str], most: int) -> list[str]:
    """The paths of the columns, by the names of the model; by default the first plain fields.

    Raises Failure for a path that the record does not have.
    """
    wanted = [path.strip() for path in paths if path.strip()]
    if not wanted:
        fields = record_class.DESCRIPTOR.fields
        return [f.name for f in fields if f.message_type is None and not f.is_repeated][:most]
    return [_model_path(record_class.DESCRIPTOR, path) for path in wanted]


def print_table(titles: Sequence[str], rows: Iterable[Sequence[str]], *, err: bool = False) -> None:
    """Prints a table as wide as the terminal, or tab-separated if there is no terminal."""
    console = Console(stderr=err)
    if not console.is_terminal:
        lines = [titles, *rows]
        console.file.writelines("\t".join(map(one_line, line)) + "\n" for line in lines)
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for title in titles:
        table.add_column(title, overflow="fold")
    for row in rows:
        # Text, so that brackets in values are not interpreted as markup.
        table.add_row(*(Text(one_line(value)) for value in row))
    console.print(table)


def _model_path(message: Any, path: str) -> str:
    steps: list[str] = []
    for name in path.split("."):
        known = {} if message is None else {**_by_json(message), **message.fields_by_name}
        if name not in known:
            raise Failure(f"there is no field '{path}'")
        field = known[name]
        steps.append(field.name)
        message = None if field.is_repeated else field.message_type
    return ".".join(steps)


def _by_json(message: Any) -> dict[str, Any]:
    return {field.json_name: field for field in message.fields}
