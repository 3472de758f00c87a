"""Elements of lists as rows: PostgreSQL makes the rows that a plain evaluator in Python makes.

PENSTOCK_FUZZ_CASES sets the number of shapes of each dataset, PENSTOCK_FUZZ_SEED repeats a run.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import orjson
import pytest

from access import unrestricted
from chance import SEED
from penstockd.catalog import Dataset, Field, Kind
from penstockd.catalog.values import json_parser, to_json
from penstockd.errors import ValueInvalid
from penstockd.policy.model import Mask
from penstockd.policy.read import ExportQuery
from penstockd.policy.view import View
from penstockd.shapes.columns import ShapedView
from penstockd.shapes.inverse import ShapeInverse
from penstockd.shapes.lens import ShapedLens
from penstockd.shapes.model import ListRows, ShapeColumn, ShapeDefinition
from penstockd.shapes.rows import ROW_NUMBER
from penstockd.shapes.using import ChosenShape
from seen_worlds import World, open_world
from shapes_drawn import draw_shape
from worlds import cases

CASES = int(os.environ.get("PENSTOCK_FUZZ_CASES", "20"))


@pytest.fixture(scope="module")
def world(module_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with open_world(module_url, tmp_path_factory.mktemp("model"), SEED) as made:
        yield made


def element_fields(view: View, field: Field) -> list[Field]:
    """What an element has, with paths as a shape names them."""
    if field.element is not None:
        return [replace(field.element, path=field.path, json_path=field.json_path)]
    return [*view.members(field)]


def draw_rows(view: View, rng: random.Random) -> ShapeDefinition | None:
    """A shape with rows of a list that the View shows; None if it shows none."""
    lists = [f for f in view.fields() if f.kind is Kind.LIST and not f.recursive]
    if not lists:
        return None
    field = rng.choice(lists)
    own = element_fields(view, field)
    record = [f for f in view.fields() if f is not field]
    drawn = draw_shape(view.dataset.name, rng.choices(record, k=3) + own * 3, rng)
    columns = [*drawn.columns, ShapeColumn("n", row_number=True)]
    return replace(drawn, columns=columns, rows=ListRows(field.path, rng.random() < 0.5))


def unfold(view: View, field: Field, values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The values of each row of a record: the plain evaluator."""
    rows = []
    for number, item in enumerate(values[field.path] or [], 1):
        row = {**values, ROW_NUMBER: number}
        for member in element_fields(view, field):
            held = item
            for step in member.json_steps[len(field.json_steps) :]:
                held = None if held is None else held.get(step)
            # A list within an element is shown as it is, without the members that are removed.
            plain_value = held is None or member.is_json
            row[member.path] = held if plain_value else json_parser(member)(held)
        rows.append(row)
    return rows


def empty_row(view: View, field: Field, values: Mapping[str, Any]) -> dict[str, Any]:
    absent = {member.path: None for member in element_fields(view, field)}
    return {**values, **absent, ROW_NUMBER: None}


def read_stored(field: Field, value: Any) -> Any:
    return orjson.loads(value) if field.is_json and value is not None else value


def expected_rows(world: World, shaped: ShapedView, rows: ListRows) -> list[list[Any]]:
    """The rows of all records, by key, from the fields' values."""
    view, field = shaped.view, shaped.rows.list
    assert field is not None
    reads = shaped.reads
    found = []
    for _, stored in sorted(world.rows(view, reads, "").items()):
        values = {f.path: read_stored(f, v) for f, v in zip(reads, stored, strict=True)}
        made = unfold(view, field, values)
        if not made and not rows.skip_empty:
            made = [empty_row(view, field, values)]
        found += [[to_json(c.field, c.run(row)) for c in shaped.columns] for row in made]
    return found


def read_rows(world: World, shaped: ShapedView, limit: int = 0) -> list[list[Any]]:
    """The rows as an export reads them."""
    columns = [c.sql for c in shaped.columns]
    unfolding = shaped.rows.unfolding
    query = ExportQuery(shaped.view, columns, filter="", order_by="", unfolding=unfolding)
    text, settings = query.copy(limit)

    async def read() -> list[Any]:
        async with world.connection.transaction():
            for name, value in settings.items():
                await world.connection.execute("SELECT set_config($1, $2, true)", name, value)
            return list(await world.connection.fetch(text))

    return [
        [
            to_json(c.field, read_stored(c.field, v))
            for c, v in zip(shaped.columns, row, strict=True)
        ]
        for row in map(tuple, world.runner.run(read()))
    ]


def test_postgres_makes_the_rows_of_the_plain_evaluator(world: World) -> None:
    print(f"PENSTOCK_FUZZ_SEED={SEED} PENSTOCK_FUZZ_CASES={CASES}")
    compared = masked = 0
    seen = set[str]()
    for dataset in world.catalog:
        for number, rng in cases(SEED, CASES):
            view = world.view(dataset, rng)
            definition = draw_rows(view, rng)
            if definition is None:
                continue
            assert definition.rows is not None
            shaped = ShapedView(view, definition.document().decode())
            want = expected_rows(world, shaped, definition.rows)
            have = read_rows(world, shaped)
            text = (SEED, dataset.name, number, definition.document())
            assert plain(have) == plain(want), text
            compared += len(have)
            seen.add(definition.rows.field)
            field = view.field(definition.rows.field)
            assert field is not None
            masked += any(view.mask(m) is not Mask.CLEAR for m in field.walk())
    assert compared > 200 and masked > 3 and {"all_kits", "labels", "numbers"} <= seen


def plain(value: Any) -> str:
    """A text that is the same for equal values."""
    if isinstance(value, dict):
        return str({name: plain(value[name]) for name in sorted(value)})
    if isinstance(value, list):
        return str([plain(v) for v in value])
    return repr(value)


def in_whole_view(world: World, *columns: ShapeColumn, rows: ListRows) -> ShapedView:
    definition = ShapeDefinition("things", columns, rows=rows)
    return ShapedView(unrestricted(world.catalog, "things"), definition.document().decode())


def test_a_limit_counts_records(world: World) -> None:
    rows = ListRows("labels")
    columns = [ShapeColumn("Key", field="thing_id"), ShapeColumn("Label", field="labels")]
    shaped = in_whole_view(world, *columns, rows=rows)
    whole = read_rows(world, shaped)
    keys = list(dict.fromkeys(row[0] for row in whole))
    assert len(whole) > len(keys) > 3
    for limit in (1, 3, len(keys) + 1):
        want = [row for row in whole if row[0] in keys[:limit]]
        assert read_rows(world, shaped, limit) == want
    assert [row[0] for row in whole] == sorted(row[0] for row in whole)


def test_the_number_of_rows_counts_as_shown(world: World) -> None:
    """It tells how long the list is."""
    columns = [ShapeColumn("Key", field="thing_id")]
    shaped = in_whole_view(world, *columns, rows=ListRows("numbers"))
    assert [f.path for f in shaped.reads] == ["thing_id", "numbers"]
    assert shaped.rule_fields == "thing_id,numbers"


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        ("nothing", "unknown field 'nothing'"),
        ("title", "'title' is not a list"),
        ("words", "'words' is not a list"),
    ],
)
def test_what_has_no_elements_makes_no_rows(world: World, field: str, reason: str) -> None:
    with pytest.raises(ValueInvalid, match=reason):
        in_whole_view(world, ShapeColumn("Key", field="thing_id"), rows=ListRows(field))


def test_changes_and_imports_refuse_rows_of_elements(world: World) -> None:
    dataset: Dataset = world.catalog["things"]
    columns = [ShapeColumn("Key", field="thing_id"), ShapeColumn("Label", field="labels")]
    definition = ShapeDefinition("things", columns, rows=ListRows("labels"))
    document = definition.document().decode()
    view = unrestricted(world.catalog, "things")
    chosen = ChosenShape("crm", "drawn", 2, document)
    with pytest.raises(ValueInvalid, match="'drawn@2' makes a row of each element of 'labels'"):
        ShapedLens(view, world.catalog, chosen)
    inverse = ShapeInverse(view, document)
    assert set(inverse.problems) == {"Key", "Label"}
    with pytest.raises(ValueInvalid, match="a row is an element of 'labels'"):
        inverse.check(dataset.fields)
    # The control: the same columns with a row for each record.
    plain_rows = replace(definition, rows=None, columns=[columns[0]]).document().decode()
    ShapedLens(view, world.catalog, replace(chosen, document=plain_rows))
    assert not ShapeInverse(view, plain_rows).problems


def test_a_definition_without_rows_is_saved_as_before() -> None:
    """Versions that are equal must have equal bytes, those of earlier programs included."""
    columns = [ShapeColumn("Key", field="thing_id")]
    assert b"row" not in ShapeDefinition("things", columns).document()
    with_rows = ShapeDefinition("things", columns, rows=ListRows("labels", skip_empty=True))
    assert ShapeDefinition.parse(with_rows.document()) == with_rows
