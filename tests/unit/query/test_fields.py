"""Selections of fields."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import Column

from penstockd.catalog import Field, FieldClass, Kind
from penstockd.query import FieldUnknown, Names, SelectionError, parse_fields, select_fields

PATHS = [
    ("record_id", "recordId"),
    ("name", "name"),
    ("home_address.city", "homeAddress.city"),
    ("home_address.geo.lat", "homeAddress.geo.lat"),
    ("home", "home"),
    ("tags", "tags"),
]


@pytest.fixture
def names(names_of: Callable[..., Names]) -> Names:
    fields = [Field(p, j, Kind.STRING, FieldClass.PUBLIC, True) for p, j in PATHS]
    return names_of({f: Column(f.path) for f in fields})


def said(message: str, position: int | None) -> str:
    """The message with its position, which clients count from 1."""
    return message if position is None else f"{message} (at character {position + 1})"


@pytest.mark.parametrize(
    ("text", "paths"),
    [
        ("", [p for p, _ in PATHS]),
        (" ", [p for p, _ in PATHS]),
        ("*", [p for p, _ in PATHS]),
        ("tags,name", ["name", "tags"]),
        (" name , name,recordId ", ["record_id", "name"]),
        ("home_address", ["home_address.city", "home_address.geo.lat"]),
        ("homeAddress.geo,home", ["home_address.geo.lat", "home"]),
        ("home_address.city,home_address", ["home_address.city", "home_address.geo.lat"]),
    ],
)
def test_selections_come_in_the_order_of_the_schema(
    names: Names, text: str, paths: list[str]
) -> None:
    assert [f.path for f in parse_fields(text, names)] == paths


@pytest.mark.parametrize(
    ("text", "message", "position"),
    [
        ("nme", "unknown field 'nme'", 0),
        ("name, homeaddress", "unknown field 'homeaddress'", 6),
        ("name.first", "unknown field 'name.first'", 0),
        ("home_address.", "unknown field 'home_address.'", 0),
        ("name,,tags", "a selection of fields contains an empty name", 5),
        ("name,*", "unknown field '*'", 5),
        ("n," * 3000, "a selection of fields may be at most 4096 bytes long", None),
    ],
)
def test_refusals(names: Names, text: str, message: str, position: int | None) -> None:
    with pytest.raises(SelectionError) as caught:
        parse_fields(text, names)
    assert caught.value.message == said(message, position)
    assert caught.value.position == position
    assert isinstance(caught.value, FieldUnknown) is message.startswith("unknown")


def test_a_mask_may_be_of_any_length(names: Names) -> None:
    mask = ["homeAddress.city", "tags", "home_address"] * 1000
    found = [f.path for f in select_fields(mask, names)]
    assert found == ["home_address.city", "home_address.geo.lat", "tags"]
    assert [f.path for f in select_fields(["*"], names)] == [p for p, _ in PATHS]
    with pytest.raises(FieldUnknown, match="nmae"):
        select_fields([*mask, "nmae"], names)
    with pytest.raises(SelectionError, match="empty name"):
        select_fields([""], names)
