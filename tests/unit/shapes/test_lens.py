"""Random shapes in random Views: the change log gives what PostgreSQL gives.

PENSTOCK_FUZZ_CASES sets the number of shapes of each dataset, PENSTOCK_FUZZ_SEED repeats a run.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from access import unrestricted
from chance import SEED
from penstockd.catalog import Dataset
from penstockd.catalog.values import to_json
from penstockd.errors import RecordUnreadable, ShapeUnfit
from penstockd.policy.model import Mask
from penstockd.shapes.lens import MAX_RECORD, ShapedLens
from penstockd.shapes.model import NumberFormat, ShapeColumn, ShapeDefinition
from penstockd.shapes.using import ChosenShape
from penstockd.store.sql import compile_for_copy
from seen_worlds import World, open_world
from shapes_drawn import draw_shape
from worlds import cases

CASES = int(os.environ.get("PENSTOCK_FUZZ_CASES", "20"))


@pytest.fixture(scope="module")
def world(module_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with open_world(module_url, tmp_path_factory.mktemp("model"), SEED) as made:
        yield made


def lens_of(world: World, dataset: Dataset, rng: random.Random, filter: str = "") -> ShapedLens:
    """A random shape in a random View."""
    view = world.view(dataset, rng)
    return in_lens(world, view, draw_shape(dataset.name, view.fields(), rng), filter)


def in_lens(world: World, view: Any, definition: ShapeDefinition, filter: str = "") -> ShapedLens:
    chosen = ChosenShape("crm", "drawn", 1, definition.document().decode())
    return ShapedLens(view, world.catalog, chosen, filter)


def rows_of(world: World, lens: ShapedLens) -> dict[str, dict[str, Any]]:
    """The rows of an export in JSON, by key."""
    view, columns = lens.view, lens.shaped.columns
    named = [view.key_column.label("__key"), *(c.sql.label(c.field.path) for c in columns)]
    text, settings = compile_for_copy(view.narrow(named, None))

    async def read() -> list[Any]:
        async with world.connection.transaction():
            for name, value in settings.items():
                await world.connection.execute("SELECT set_config($1, $2, true)", name, value)
            return list(await world.connection.fetch(text))

    def json_of(column: Any, value: Any) -> Any:
        stored = column.field.is_json and value is not None
        return to_json(column.field, orjson.loads(value) if stored else value)

    return {
        row[0]: {c.field.path: json_of(c, v) for c, v in zip(columns, row[1:], strict=True)}
        for row in map(tuple, world.runner.run(read()))
    }


def test_the_log_gives_the_columns_that_postgres_gives(world: World) -> None:
    print(f"PENSTOCK_FUZZ_SEED={SEED} PENSTOCK_FUZZ_CASES={CASES}")
    compared = masked = 0
    for dataset in world.catalog:
        for number, rng in cases(SEED, CASES * (3 if dataset.name == "things" else 1)):
            lens = lens_of(world, dataset, rng)
            rows = rows_of(world, lens)
            for key, image in world.images[dataset.name].items():
                shown = lens.see(image, world.find)
                text = (SEED, dataset.name, number, key, lens.shape.document)
                assert (shown is not None) == (key in rows), text
                if shown is not None:
                    # The members of maps have no order, and zeros have a sign.
                    have, want = lens.values(key, shown), rows[key]
                    assert list(have) == list(want), text
                    assert plain(have) == plain(want), (*text, have, want)
                    compared += 1
            masked += any(lens.view.mask(f) is not Mask.CLEAR for f in lens.fields)
    assert compared > 100 and masked > CASES


def plain(value: Any) -> str:
    """A text that is the same for equal values."""
    if isinstance(value, dict):
        return str({name: plain(value[name]) for name in sorted(value)})
    if isinstance(value, list):
        return str([plain(v) for v in value])
    return repr(value)


def test_the_shape_belongs_to_the_view_id_and_a_changed_column_is_named(world: World) -> None:
    dataset = world.catalog["things"]
    rng = random.Random(SEED)
    view = world.view(dataset, rng)
    text = next(f.path for f in view.fields() if f.kind.name == "STRING")
    columns = [ShapeColumn("Name", field=text), ShapeColumn("Fixed", constant="x")]
    lens = in_lens(world, view, ShapeDefinition("things", columns))
    other = in_lens(world, view, ShapeDefinition("things", columns[:1]))
    assert lens.fields == other.fields and lens.view_id != other.view_id
    assert lens.in_view(view).view_id == lens.view_id
    assert lens.changed_columns([text]) == ["Name"] and lens.changed_columns(["nothing"]) == []
    fixed = in_lens(world, view, ShapeDefinition("things", columns[1:]))
    # It shows no field, and an empty text would stand for all fields.
    assert fixed.fields == dataset.key_fields and fixed.rule_fields == dataset.key.path
    image = next(iter(world.images["things"].values()))
    assert fixed.values("k", fixed.project(image)) == {"Fixed": "x"}


def test_an_image_of_an_earlier_model_keeps_its_values(world: World) -> None:
    """A decimal with more digits than the model has now, and an enum's number without a name."""
    dataset = world.catalog["things"]
    view = unrestricted(world.catalog, "things")
    columns = [
        ShapeColumn("Price", field="price"),
        ShapeColumn("Rounded", field="price", number=NumberFormat(2, ",")),
        ShapeColumn("Color", field="color"),
        ShapeColumn("Mapped", field="color", values={"RED": "1"}, otherwise="?"),
    ]
    lens = in_lens(world, view, ShapeDefinition("things", columns))
    record = dataset.message_class(thing_id="k", price="1.23456789012", color=99)
    shown = lens.values("k", lens.project(record.SerializeToString()))
    assert shown == {
        "Price": "1.23456789012", "Rounded": "1,23", "Color": "99", "Mapped": "?"
    }  # fmt: skip
    odd = dataset.message_class(thing_id="k", price="NaN")
    with pytest.raises(RecordUnreadable):
        lens.values("k", lens.project(odd.SerializeToString()))


def test_elements_that_the_model_refuses_stay_as_the_image_has_them(world: World) -> None:
    """Among good ones, which are canonical as ever; maps alike."""
    dataset = world.catalog["things"]
    columns = [ShapeColumn(name, field=name) for name in ("all_kits", "named_kits")]
    view = unrestricted(world.catalog, "things")
    lens = in_lens(world, view, ShapeDefinition("things", columns))
    holder: Any = dataset.message_class(thing_id="k")
    kit = holder.all_kits.add
    good, bad = (
        kit(kit_name="g", color=1, amount_due="1.5"),
        kit(kit_name="b", color=99, amount_due="1.23456"),
    )

    def shown(**kits: Any) -> dict[str, Any]:
        record = dataset.message_class(thing_id="k", **kits)
        return lens.values("k", lens.project(record.SerializeToString()))

    found = shown(all_kits=[good, bad], named_kits={"g": good, "b": bad})
    alone = shown(all_kits=[good], named_kits={"g": good})
    assert found["all_kits"][0] == alone["all_kits"][0]
    assert found["named_kits"]["g"] == alone["named_kits"]["g"]
    for each in (found["all_kits"][1], found["named_kits"]["b"]):
        assert (each["color"], each["amountDue"]) == (99, "1.23456")
    labels = in_lens(
        world, view, ShapeDefinition("things", [ShapeColumn("n", field="numbers", join=";")])
    )
    record = dataset.message_class(thing_id="k", numbers=[1, 2])
    assert labels.values("k", labels.project(record.SerializeToString())) == {"n": "1;2"}


def test_a_record_in_a_shape_is_bounded(world: World) -> None:
    dataset = world.catalog["things"]
    view = world.view(dataset, random.Random(SEED))
    columns = [ShapeColumn(f"c{n}", constant="x" * 300) for n in range(200)]
    key, image = next(iter(world.images["things"].items()))
    lens = in_lens(world, view, ShapeDefinition("things", columns))
    assert len(lens.values(key, lens.project(image))) == 200
    wide = [ShapeColumn(f"c{n}", constant="x" * (MAX_RECORD // 20)) for n in range(21)]
    lens = in_lens(world, view, ShapeDefinition("things", wide))
    with pytest.raises(ShapeUnfit, match=f"'{key}' has more than 512 KiB in the shape 'drawn@1'"):
        lens.values(key, lens.project(image))
