"""The fields that a caller selects: ``fields=name,billing_address``."""

from __future__ import annotations

from typing import Final

from penstockd.catalog import Field
from penstockd.query.errors import FieldUnknown, SelectionError
from penstockd.query.names import Names

MAX_BYTES: Final = 4096


def parse_fields(text: str, names: Names) -> tuple[Field, ...]:
    """The selected fields, in the order of the schema whatever the order of the text.

    Names are proto or proto JSON paths, separated by commas; a message path stands for those of
    its leaves that the caller may see. Empty, or ``*``, selects all. Raises FieldUnknown for a
    name that is unknown or hidden, SelectionError for an empty name or more than 4 KiB of text.
    """
    if len(text) > MAX_BYTES:
        raise SelectionError(f"a selection of fields may be at most {MAX_BYTES} bytes long")
    visible = names.fields()
    if text.strip() in ("", "*"):
        return tuple(visible)
    wanted: set[str] = set()
    position = 0
    for part in text.split(","):
        name = part.strip()
        at = position + len(part) - len(part.lstrip())
        if not name:
            raise SelectionError("a selection of fields contains an empty name", position)
        wanted.update(_leaf_paths(name, at, names))
        position += len(part) + 1
    return tuple(f for f in visible if f.path in wanted)


def _leaf_paths(name: str, position: int, names: Names) -> list[str]:
    field = names.field(name)
    if field is not None:
        return [field.path]
    start = name + "."
    found = [
        f.path for f in names.fields() if f.path.startswith(start) or f.json_path.startswith(start)
    ]
    if not found:
        raise FieldUnknown(name, position)
    return found
