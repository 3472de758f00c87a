"""The values that fields have if nobody sets them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from penstockd.catalog.model import Field, FieldClass, Kind
from penstockd.store.rows import Defaults


def text_field(path: str, *, presence: bool = False) -> Field:
    return Field(path, path, Kind.STRING, FieldClass.PUBLIC, True, presence)


#: A message within a message, with a value that has a default, and one that has none, at each.
PATHS = ["one.name", "one.note", "one.two.name", "one.two.note"]


def test_a_message_within_a_message_is_present_only_if_something_in_it_is() -> None:
    fields = [text_field(p, presence=p.endswith("note")) for p in PATHS]
    dataset: Any = SimpleNamespace(fields=fields)
    defaults = Defaults(dataset)
    cases: list[tuple[list[str | None], list[str | None]]] = [
        ([None, None, None, None], [None, None, None, None]),
        ([None, "n", None, None], ["", "n", None, None]),
        (["a", None, None, None], ["a", None, None, None]),
        # What is present within makes what is around it present, too.
        ([None, None, None, "n"], ["", None, "", "n"]),
        ([None, None, "b", None], ["", None, "b", None]),
    ]
    for given, full in cases:
        row = list(given)
        defaults.complete(row)
        assert row == full, given
    columns = [list(column) for column in zip(*(given for given, _ in cases), strict=True)]
    defaults.complete_columns(columns)
    assert [list(row) for row in zip(*columns, strict=True)] == [full for _, full in cases]
