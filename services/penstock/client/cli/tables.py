"""Tables on standard output, and the columns of records in them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from penstock.client.cli.failures import Failure, one_line
from penstock.client.record import to_dict


@dataclass(frozen=True, slots=True)
class Column:
    """A field as a column of a table; ``steps`` are its proto JSON names."""

    title: str
    steps: tuple[str, ...]

    def text(self, record: Any) -> str:
        """The record's value in the column; nested values as JSON, null as empty text."""
        value: Any = to_dict(record, [self.title])
        for step in self.steps:
            value = value.get(step) if isinstance(value, dict) else None
        if value is None:
            return ""
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def columns_of(record_class: Any, paths: Sequence[str], most: int) -> list[Column]:
    """The columns for the field paths or, by default, for the first plain fields.

    Raises Failure for a path that the record does not have.
    """
    wanted = [path.strip() for path in paths if path.strip()]
    if not wanted:
        fields = record_class.DESCRIPTOR.fields
        wanted = [f.name for f in fields if f.message_type is None and not f.is_repeated][:most]
    return [Column(path, _json_steps(record_class.DESCRIPTOR, path)) for path in wanted]


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


def _json_steps(message: Any, path: str) -> tuple[str, ...]:
    steps: list[str] = []
    for name in path.split("."):
        known = {} if message is None else {**_by_json(message), **message.fields_by_name}
        if name not in known:
            raise Failure(f"there is no field '{path}'")
        field = known[name]
        steps.append(field.json_name)
        message = None if field.is_repeated else field.message_type
    return tuple(steps)


def _by_json(message: Any) -> dict[str, Any]:
    return {field.json_name: field for field in message.fields}
