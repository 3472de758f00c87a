"""Shapes read backwards: readable columns give the same record, and others are refused by name.

PENSTOCK_FUZZ_CASES sets the number of shapes, PENSTOCK_FUZZ_SEED repeats a run.
"""

from __future__ import annotations

import os
import random
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import orjson
import pytest

from access import unrestricted
from chance import SEED
from penstockd.catalog import Catalog, Dataset, Field, Kind
from penstockd.catalog.values import to_json
from penstockd.errors import ValueInvalid
from penstockd.formats.options import FROM_FILE
from penstockd.formats.reading import RowBatch
from penstockd.policy.view import View
from penstockd.shapes.formats import write_number
from penstockd.shapes.inverse import ShapeInverse
from penstockd.shapes.lens import ShapedLens
from penstockd.shapes.model import NumberFormat, ShapeColumn, ShapeDefinition
from penstockd.shapes.reader import ShapedReader
from penstockd.shapes.using import ChosenShape
from penstockd.spools import SpoolPlace
from seen_worlds import images_of
from shapes_drawn import draw_shape
from worlds import cases, catalog_of, random_rows

CASES = int(os.environ.get("PENSTOCK_FUZZ_CASES", "20"))


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    return catalog_of(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def things(catalog: Catalog) -> Dataset:
    return catalog["things"]


@pytest.fixture(scope="module")
def view(catalog: Catalog, things: Dataset) -> View:
    return unrestricted(catalog, "things")


def shape_of(*columns: ShapeColumn) -> ShapeDefinition:
    return ShapeDefinition("things", columns)


def inverse(view: View, definition: ShapeDefinition) -> ShapeInverse:
    return ShapeInverse(view, definition.document().decode())


def lens_of(view: View, catalog: Catalog, definition: ShapeDefinition) -> ShapedLens:
    chosen = ChosenShape("crm", "drawn", 1, definition.document().decode())
    return ShapedLens(view, catalog, chosen)


def read(
    dataset: Dataset, made: ShapeInverse, rows: Sequence[Mapping[str, Any]]
) -> tuple[tuple[Field, ...], list[RowBatch]]:
    """The rows of a file in NDJSON: the fields, and the batches."""
    reader = ShapedReader("NDJSON", dataset, made.columns, FROM_FILE, SpoolPlace())
    data = b"".join(orjson.dumps(row) + b"\n" for row in rows)
    found = [*reader.feed(data), *reader.close()]
    return reader.fields, found


def test_what_can_be_read_back_gives_the_same_record(
    catalog: Catalog, things: Dataset, view: View
) -> None:
    print(f"PENSTOCK_FUZZ_SEED={SEED} PENSTOCK_FUZZ_CASES={CASES}")
    rng = random.Random(SEED)
    images = images_of(things, random_rows(catalog, things, rng))
    # A record shows a message that contains only an empty list as absent.
    fields = [f for f in view.fields() if "." not in f.path and not f.output_only]
    key = ShapeColumn("Key", field=things.key.path)
    compared, inverted = 0, dict[str, int]()
    for number, drawn in cases(SEED, CASES * 5):
        shape = draw_shape("things", [f for f in fields if not f.in_key], drawn)
        definition = ShapeDefinition("things", [key, *shape.columns])
        made = inverse(view, definition)
        refused = set(made.problems)
        kept = [c for c in definition.columns if c.name not in refused]
        shaped = lens_of(view, catalog, shape_of(*kept))
        straight = [c.target for c in made.columns if c.target is not None]
        same = lens_of(
            view, catalog,
            shape_of(*(ShapeColumn(f"c{i}", field=f.path) for i, f in enumerate(straight))),
        )  # fmt: skip
        rows = [shaped.values(k, image) for k, image in images.items()]
        fields_read, (batch,) = read(things, made, rows)
        text = (SEED, number, definition.document())
        assert not batch.bad, (text, batch.bad[:2])
        places = [fields_read.index(f) for f in straight]
        for (k, image), row in zip(images.items(), batch.rows, strict=True):
            want = same.values(k, image).values()
            for field, at, value in zip(straight, places, want, strict=True):
                have = to_json(field, row[at])
                assert normal(field, have) == normal(field, value), (*text, k, field.path)
                compared += 1
        for column in kept:
            steps = [n for n in ("join", "values", "number", "time") if getattr(column, n)]
            inverted["".join(steps)] = inverted.get("".join(steps), 0) + 1
    # The control: each kind of step is read back in some shape.
    assert compared > 1000 and {"", "join", "values", "number", "time"} <= set(inverted), inverted


def test_what_a_number_format_writes_is_read_back(things: Dataset, view: View) -> None:
    rng = random.Random(SEED)
    price = things.by_path["price"]
    for _ in range(CASES * 20):
        value = Decimal(rng.randint(-(10 ** rng.randint(1, 17)), 10**17)).scaleb(-9)
        point, group = rng.choice([(",", "."), (".", ","), (",", " "), (".", "'"), ("::", "||")])
        format = NumberFormat(9, point, group)
        text = write_number(price, format).run(value)
        column = ShapeColumn("a", field="price", number=format)
        parse = inverse(view, shape_of(column)).columns[0].parse
        assert parse(text) == value, (SEED, text)


def normal(field: Field, value: Any) -> str:
    """JSON without the zeros at the end of decimals, and with members in one order."""
    if field.kind is Kind.DECIMAL and value is not None:
        return str(Decimal(value).normalize() + 0)
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


@pytest.mark.parametrize(
    ("column", "reason"),
    [
        (ShapeColumn("a", constant="x"), "it is a constant"),
        (ShapeColumn("a", expression="title + 'x'"), "it is computed"),
        (ShapeColumn("a", field="labels", join=";"), "its elements may contain the separator"),
        (ShapeColumn("a", field="numbers", join="-"), "its separator may occur in an element"),
        (ShapeColumn("a", field="numbers", join=""), "its separator may occur in an element"),
        (ShapeColumn("a", field="color", values={"RED": "1"}, otherwise="2"),
         "'COLOR_UNSPECIFIED' and 'GREEN' have the text '2'"),
        (ShapeColumn("a", field="color", values={"RED": "GREEN"}),
         "'RED' and 'GREEN' have the text 'GREEN'"),
        (ShapeColumn("a", field="title", values={"a": "A"}), "'A' may also be an unmapped value"),
        (ShapeColumn("a", field="small", values={"1": "2"}), "'2' may also be an unmapped value"),
        (ShapeColumn("a", field="small", values={"1": "one"}, otherwise="x"),
         "all other values have the text 'x'"),
        (ShapeColumn("a", field="price", number=NumberFormat(2)),
         "it keeps 2 of 9 digits after the point"),
        (ShapeColumn("a", field="weight", number=NumberFormat(2)), "is rounded"),
        (ShapeColumn("a", field="small", number=NumberFormat(2, ",", ",")), "mistaken"),
        (ShapeColumn("a", field="small", number=NumberFormat(2, "1")), "part of a number"),
        (ShapeColumn("a", field="day", time="%Y-%m"), "its format lacks %d"),
        (ShapeColumn("a", field="seen_at", time="%Y-%m-%d"), "its format lacks %H, %M, %S, %f"),
        (ShapeColumn("a", field="day", time="%Y%m%d%d"), "its format contains a part twice"),
        (ShapeColumn("a", field="remark", default="none"),
         "its default 'none' may also be a value"),
        (ShapeColumn("a", field="thing_id"), "the column 'Key' has the same field"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_back_is_refused_by_name(
    view: View, column: ShapeColumn, reason: str
) -> None:
    key = ShapeColumn("Key", field="thing_id")
    made = inverse(view, shape_of(key, column))
    assert reason in made.problems["a"]
    with pytest.raises(ValueInvalid) as refused:
        made.check(view.fields())
    (violation,) = refused.value.violations
    assert violation.field == "shape.columns[a]" and "skip_on_import" in violation.description
    skipped = ShapeColumn(**{**fields_of(column), "skip_on_import": True})
    inverse(view, shape_of(key, skipped)).check(view.fields())


def fields_of(column: ShapeColumn) -> dict[str, Any]:
    return {name: getattr(column, name) for name in ShapeColumn.__dataclass_fields__}


def test_the_key_must_come_back_and_fields_must_be_writable(view: View) -> None:
    made = inverse(view, shape_of(ShapeColumn("Title", field="title")))
    with pytest.raises(ValueInvalid, match="lacks a column for the key 'thing_id'"):
        made.check(view.fields())
    both = shape_of(ShapeColumn("Key", field="thing_id"), ShapeColumn("Title", field="title"))
    readable = [f for f in view.fields() if f.path != "title"]
    with pytest.raises(ValueInvalid, match="you may not write the field 'title'"):
        inverse(view, both).check(readable)


@pytest.mark.parametrize(
    ("column", "text", "reason"),
    [
        (ShapeColumn("a", field="small", number=NumberFormat(2, ",", ".")), "1.2x", "not a number"),
        (ShapeColumn("a", field="small", number=NumberFormat(2, ",")), "1.25", "not a number"),
        (
            ShapeColumn("a", field="price", number=NumberFormat(9, ".", ",")),
            "12,50",
            "not a number",
        ),
        (ShapeColumn("a", field="price", number=NumberFormat(9, ",", ".")), "1..5", "not a number"),
        (
            ShapeColumn("a", field="price", number=NumberFormat(9, ",", ".")),
            "12.50",
            "not a number",
        ),
        (
            ShapeColumn("a", field="small", number=NumberFormat(0, ".", ",")),
            "1,2345",
            "not a number",
        ),
        (
            ShapeColumn("a", field="small", number=NumberFormat(0, ".", ",")),
            "1234,567",
            "not a num",
        ),
        (
            ShapeColumn("a", field="price", number=NumberFormat(9, ".", ",")),
            "1.234,567",
            "not a num",
        ),
        (ShapeColumn("a", field="small", number=NumberFormat(0, ".", ",")), ",123", "not a number"),
        (ShapeColumn("a", field="small", number=NumberFormat(0, ".", ",")), "1,", "not a number"),
        (ShapeColumn("a", field="small", number=NumberFormat(2, ",")), "1,25", "whole number"),
        (ShapeColumn("a", field="day", time="%d.%m.%Y"), "30.02.2024", "is not a date"),
        (ShapeColumn("a", field="day", time="%d.%m.%Y"), "2024-02-01", "does not have the format"),
        (ShapeColumn("a", field="color", values={"RED": "1", "GREEN": "2"}), "3", "none of"),
        (ShapeColumn("a", field="small", values={"1": "one"}), "1", "is written as 'one'"),
        (ShapeColumn("a", field="numbers", join=";"), "1;x", "x"),
    ],
)
def test_cells_that_do_not_fit_are_bad_rows(
    things: Dataset, view: View, column: ShapeColumn, text: str, reason: str
) -> None:
    made = inverse(view, shape_of(ShapeColumn("Key", field="thing_id"), column))
    _, (batch,) = read(things, made, [{"Key": "k1", "a": text}])
    ((number, name, why),) = [(b.row, b.field, b.reason) for b in batch.bad]
    assert (number, name) == (1, "a") and reason in why
    assert batch.rows == []


@pytest.mark.parametrize(
    ("column", "text", "value"),
    [
        (ShapeColumn("a", field="small", number=NumberFormat(2, ",", ".")), "-1.234,00", -1234),
        (ShapeColumn("a", field="price", number=NumberFormat(9, ",", " ")), "1 234,5",
         Decimal("1234.5")),
        (ShapeColumn("a", field="price", number=NumberFormat(9, ",", ".")), "1234567,5",
         Decimal("1234567.5")),
        (ShapeColumn("a", field="small", number=NumberFormat(0, ".", "'")), "-1'234'567", -1234567),
        (ShapeColumn("a", field="small", values={"1": "one"}), "one", 1),
        (ShapeColumn("a", field="flag", values={"true": "yes", "false": "no"}), "no", False),
        (ShapeColumn("a", field="day", time="%d.%m.%Y", default="never"), "never", None),
        (ShapeColumn("a", field="numbers", join=";"), "", []),
        (ShapeColumn("a", field="numbers", join=";"), "1;-2", ["1", "-2"]),
        (ShapeColumn("a", field="small"), None, 0),
    ],
)  # fmt: skip
def test_values_of_cells(
    things: Dataset, view: View, column: ShapeColumn, text: str, value: Any
) -> None:
    made = inverse(view, shape_of(ShapeColumn("Key", field="thing_id"), column))
    fields, (batch,) = read(things, made, [{"Key": "k1", "a": text}])
    assert batch.bad == []
    assert batch.rows[0][fields.index(things.by_path[column.field])] == value
