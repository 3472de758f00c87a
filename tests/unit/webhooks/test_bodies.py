"""Records in the columns of a shape have the bytes of an export in that shape.

PENSTOCK_FUZZ_CASES sets the number of shapes of each dataset, PENSTOCK_FUZZ_SEED repeats a run.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Mapping
from typing import Any

import orjson
import pytest

from chance import SEED
from penstockd.catalog import Catalog, Dataset, record_json
from penstockd.floats import settle_float
from penstockd.formats import open_writer
from penstockd.shapes.lens import ShapedLens
from penstockd.shapes.using import ChosenShape
from penstockd.store.sql import compile_for_copy
from penstockd.webhooks.bodies import ShapedWriter
from seen_worlds import World, open_world
from shapes_drawn import draw_shape
from worlds import cases, random_rows

CASES = int(os.environ.get("PENSTOCK_FUZZ_CASES", "6"))


def draw_rows(catalog: Catalog, dataset: Dataset, rng: random.Random) -> list[list[Any]]:
    """Random rows with one zero, as every way in makes it."""
    rows = random_rows(catalog, dataset, rng)
    return [[settle_float(v) if isinstance(v, float) else v for v in row] for row in rows]


@pytest.fixture(scope="module")
def world(module_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with open_world(module_url, tmp_path_factory.mktemp("model"), SEED, draw=draw_rows) as made:
        yield made


def draw_lens(world: World, dataset: Dataset, rng: random.Random) -> ShapedLens:
    view = world.view(dataset, rng)
    document = draw_shape(dataset.name, view.fields(), rng).document().decode()
    return ShapedLens(view, world.catalog, ChosenShape("crm", "drawn", 1, document))


def exported(world: World, lens: ShapedLens, format: str) -> list[bytes]:
    """The records of an export, in order of key."""
    columns = {c.field: c.sql for c in lens.shaped.columns} | {
        lens.dataset.key: lens.view.key_column
    }
    writer = open_writer(format, lens.dataset, lens.shaped.fields)
    selected = [writer.sql(f, columns[f]).label(f"c{i}") for i, f in enumerate(writer.selected)]
    statement = lens.view.narrow(selected, None).order_by(lens.view.key_column)
    text, settings = compile_for_copy(statement)
    document = bytearray(writer.head())

    async def take(data: bytes) -> None:
        document.extend(writer.feed(data))

    async def read() -> None:
        async with world.connection.transaction():
            for name, value in settings.items():
                await world.connection.execute("SELECT set_config($1, $2, true)", name, value)
            await world.connection.copy_from_query(text, output=take, format="binary")

    world.runner.run(read())
    document.extend(writer.tail())
    if format == "NDJSON":
        return bytes(document).splitlines()
    end = f"</{lens.dataset.singular}>".encode()  # texts hold line ends
    _, _, records = bytes(document).partition(f"<{lens.dataset.name}>\n".encode())
    return [record + end for record in records.split(end + b"\n")[:-1]]


def posted(world: World, lens: ShapedLens) -> Mapping[str, list[bytes]]:
    """The same as webhooks post them."""
    writer = ShapedWriter(lens)
    images = sorted(world.images[lens.dataset.name].items())
    shown = [(key, seen) for key, i in images if (seen := lens.see(i, world.find)) is not None]
    return {
        "NDJSON": [orjson.dumps(writer.json(key, seen)) for key, seen in shown],
        "XML": [writer.xml(key, seen).encode() for key, seen in shown],
    }


def test_shaped_records_have_the_bytes_of_exports(world: World) -> None:
    print(f"PENSTOCK_FUZZ_SEED={SEED} PENSTOCK_FUZZ_CASES={CASES}")
    compared = 0
    for dataset in world.catalog:
        for number, rng in cases(SEED, CASES * (6 if dataset.name == "things" else 1)):
            lens = draw_lens(world, dataset, rng)
            for format, lines in posted(world, lens).items():
                text = f"seed {SEED}, case {number} of {dataset.name}, {lens.shape.document}"
                for line, expected in zip(lines, exported(world, lens, format), strict=True):
                    assert line == expected, text
                    compared += 1
    assert compared > 20 * CASES


@pytest.mark.parametrize(
    ("name", "wrong"),
    [("data_text", orjson.dumps), ("_write_number", lambda value, single: value)],
)
def test_another_layout_is_caught(
    world: World, monkeypatch: pytest.MonkeyPatch, name: str, wrong: Any
) -> None:
    monkeypatch.setattr(record_json, name, wrong)
    for _, rng in cases(SEED, 200):
        lens = draw_lens(world, world.catalog["things"], rng)
        if posted(world, lens)["NDJSON"] != exported(world, lens, "NDJSON"):
            return
    pytest.fail(f"nothing differs, seed {SEED}")
