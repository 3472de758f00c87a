"""The kernel's results for records that come as messages, compared with the interpreter's."""

from __future__ import annotations

import os
import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csv_drawn import REVISION, TIME
from penstockd.catalog import Dataset, values
from penstockd.catalog.load import load_catalog
from penstockd.catalog.model import Field, Kind
from penstockd.catalog.record import Codec
from penstockd.demo import DATASETS, generate_records
from penstockd.formats import open_reader
from penstockd.native.kernel import Kernel
from penstockd.native.records import RecordReader, message_plan
from penstockd.resources import find_descriptors
from penstockd.store.fresh import FreshRows
from penstockd.store.rows import stored_row
from penstockd.store.staging import Stager
from rows_drawn import row

from .test_fresh_rows import entries

EXAMPLES = int(os.environ.get("PENSTOCK_FUZZ_EXAMPLES", "150"))


def written(dataset: Dataset) -> tuple[Field, ...]:
    return tuple(f for f in dataset.fields if not f.output_only)


def read(dataset: Dataset, rows: list[list[Any]]) -> tuple[FreshRows, list[int]]:
    """Rows as messages, read by the kernel; what it accepts is compared with the slow way."""
    fields = written(dataset)
    codec = Codec(dataset, fields)
    records = [codec.message(stored_row(fields, list(r))) for r in rows]
    asked: list[int] = []

    def decode(places: Any) -> list[list[Any]]:
        asked.extend(places)
        return [rows[p] for p in places]

    fresh, left = RecordReader(dataset, fields).read(records, TIME, REVISION, decode)
    assert sorted([*fresh.numbers, *left]) == list(range(len(rows)))
    if fresh:
        stored = [stored_row(fields, list(rows[i])) for i in fresh.numbers]
        images = Stager.of(dataset).new(fields, stored, TIME, REVISION)[1]
        key = next(i for i, f in enumerate(fields) if f.key)
        assert entries(fresh) == [
            (i, dataset.name, r[key], 1, image)
            for i, (r, image) in enumerate(zip(stored, images, strict=True))
        ]
        last = len(fresh) - 1
        assert fresh.decode([last]) == [rows[fresh.numbers[last]]]
        assert asked == [fresh.numbers[last]]
    return fresh, left


def test_any_record_comes_out_as_the_slow_way_makes_it(things: Dataset) -> None:
    fields = written(things)
    seen = {"fresh": 0, "left": 0}

    @settings(max_examples=EXAMPLES)
    @given(some_rows(things, fields))
    def check(rows: list[list[Any]]) -> None:
        fresh, left = read(things, rows)
        seen["fresh"] += len(fresh)
        seen["left"] += len(left)

    check()
    print(seen)
    assert min(seen.values()) >= EXAMPLES, "there is one of each in every example"


def plain(dataset: Dataset, **values: Any) -> list[Any]:
    """A row that the kernel accepts, except for the given values."""
    usual = {Kind.STRING: "", Kind.BOOL: False, Kind.ENUM: "COLOR_UNSPECIFIED", Kind.LIST: [],
             Kind.MAP: {}, Kind.DOUBLE: 0.0}  # fmt: skip
    found = []
    for f in written(dataset):
        value = values.get(f.path.replace(".", "__"))
        if value is None and f.key:
            value = "k"
        if value is None and not f.nullable and f.kind is not Kind.TIMESTAMP:
            value = usual.get(f.kind, 0)
        found.append(value if value is not None or f.kind is not Kind.TIMESTAMP else TIME)
    return found


@st.composite
def some_rows(draw: st.DrawFn, dataset: Dataset, fields: tuple[Field, ...]) -> list[list[Any]]:
    """Rows with random values, few of them not plain; at least one plain row and one odd row."""
    complete = values.make_completer(dataset, fields)
    rows = draw(st.lists(row(dataset, fields), max_size=2))
    for found in draw(st.lists(row(dataset, fields), max_size=3)):
        few = plain(dataset)
        for place in draw(st.sets(st.integers(0, len(fields) - 1), max_size=4)):
            few[place] = found[place]
        complete(few)
        rows.append(few)
    rows += [plain(dataset), plain(dataset, weight=float("nan"))]
    return draw(st.permutations(rows))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("title", 'é "日本" \t\r\n 👩‍👧'),
        ("labels", ["", 'a"b\\c', "x\ty\nz\r", "é" * 100]),
        ("small", -(2**31)),
        ("large", -(2**63)),
        ("large", 2**63 - 1),
        ("small_positive", 2**32 - 1),
        ("large_positive", 2**63),
        ("large_positive", 10**19 - 1),
        ("weight", 0.35),
        ("weight", -1234567.125),
        ("weight", 9007199254740.99),
        ("ratio", 0.10000000149011612),
        ("ratio", 0.0),
        ("maybe", False),
        ("other_color", "COLOR_UNSPECIFIED"),
    ],
)
def test_usual_values_are_taken(things: Dataset, path: str, value: Any) -> None:
    fresh, _ = read(things, [plain(things, **{path: value})])
    assert len(fresh) == 1


@pytest.mark.parametrize(
    ("path", "value"),
    [
        *(("title", c) for c in ("\x1d", "a\x1eb", "\x1f", "\x01", "\x00", "\uffff")),
        ("labels", ["a\x1fb"]),
        ("labels", ["\x1d"]),
        ("weight", float("nan")),
        ("weight", float("inf")),
        ("weight", 1e-300),
        ("large_positive", 2**64 - 1),
        ("numbers", ["1"]),
        ("raw_data", b"x"),
        ("raw_data", b""),
        ("words", {"a": "b"}),
    ],
)
def test_odd_values_are_left_and_harm_no_other_record(
    things: Dataset, path: str, value: Any
) -> None:
    rows = [plain(things), plain(things, **{path: value}), plain(things)]
    fields = written(things)
    codec = Codec(things, fields)
    records = [codec.message(stored_row(fields, list(r))) for r in rows]
    fresh, left = RecordReader(things, fields).read(records, TIME, REVISION, lambda places: [])
    assert (fresh.numbers, left) == ([0, 2], [1])


def test_all_demo_records_that_can_be_are_taken() -> None:
    catalog = load_catalog(find_descriptors())
    for name in DATASETS:
        dataset = catalog[name]
        source = open_reader("CSV", dataset, written(dataset))
        batches = [b for c in generate_records(name, 300) for b in source.feed(c)] + list(
            source.close()
        )
        place = {f.path: i for i, f in enumerate(source.fields)}
        rows = [[r[place[f.path]] for f in written(dataset)] for b in batches for r in b.rows]
        _, left = read(dataset, rows)
        assert len(rows) >= 50
        if name not in ("orders", "products"):
            assert not left, name


def test_bytes_that_are_no_record_are_refused(things: Dataset) -> None:
    plan = message_plan(things, written(things))
    assert plan is not None
    good = things.message_class(thing_id="k").SerializeToString()
    assert Kernel(plan).messages([good]) is not None
    for bad in (good[:-1], b"\xff" * 11, b"\x0b\x0c", struct.pack("<B", 0x12) + b"\x7fab"):
        assert Kernel(plan).messages([good, bad, good]) is None
    # Fields that the plan does not know are skipped.
    unknown = good + b"\xf8\x7f\x01\xfa\x7f\x01a\xfd\x7fabcd\xf9\x7fabcdefgh"
    assert Kernel(plan).messages([unknown]) == Kernel(plan).messages([good])
