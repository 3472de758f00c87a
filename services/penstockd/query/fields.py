"""The fields that a caller selects: ``fields=name,billing_address``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from penstockd.catalog import Field, Kind
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
    if text.strip() in ("", "*"):
        return tuple(names.fields())
    return _choose_fields(text.split(","), names)


def select_fields(paths: Iterable[str], names: Names) -> tuple[Field, ...]:
    """The same for the paths of a mask, of which ``*`` stands for all fields.

    The text may be of any length: what it costs is bounded by the names that the caller may see,
    since the first other one raises FieldUnknown.
    """
    chosen = dict.fromkeys(paths)
    if list(chosen) == ["*"]:
        return tuple(names.fields())
    return _choose_fields(chosen, names)


def _choose_fields(parts: Iterable[str], names: Names) -> tuple[Field, ...]:
    wanted: set[str] = set()
    position = 0
    for part in parts:
        name = part.strip()
        at = position + len(part) - len(part.lstrip())
        if not name:
            raise SelectionError("a selection of fields contains an empty name", position)
        wanted.update(_leaf_paths(name, at, names))
        position += len(part) + 1
    return tuple(f for f in names.fields() if f.path in wanted)


def _leaf_paths(name: str, position: int, names: Names) -> list[str]:
    field = names.field(name)
    if field is not None:
        return [field.path]
    start = name + "."
    found = [
        f.path for f in names.fields() if f.path.startswith(start) or f.json_path.startswith(start)
    ]
    if not found:
        struct = find_struct(name, names)
        if struct is not None:
            raise SelectionError(
                f"'{struct.path}' is a Struct, which is read and written as a whole: name it "
                "without its members",
                position,
            )
        raise FieldUnknown(name, position)
    return found


def find_struct(name: str, names: Names) -> Field | None:
    """The visible Struct that a name leads into."""
    steps = name.split(".")
    parts = (names.field(".".join(steps[:n])) for n in range(len(steps) - 1, 0, -1))
    return next((f for f in parts if f is not None and f.kind is Kind.STRUCT), None)
