"""Messages within messages: each is present only if something in it is."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from csv_drawn import REVISION, TIME
from penstockd.catalog import Dataset
from penstockd.catalog.values import make_completer
from penstockd.formats import open_reader
from penstockd.store.rows import Defaults, stored_row
from penstockd.store.staging import Stager
from worlds import COMMON, HEAD, compiled

#: A message in a message in a message, beside another; lists, texts and flags have defaults.
MODEL = """
message Probe {
  option (penstock.options.v1.dataset) = {title: "Probes"};
  message Inner { repeated string tags = 1; optional string note = 2; string name = 3; }
  message Middle { Inner inner = 1; optional string note = 2; map<string, string> words = 3; }
  message Outer { Middle middle = 1; Inner other = 2; bool flag = 3; optional string note = 4; }
  string probe_id = 1 [(penstock.options.v1.field).key = true];
  Outer outer = 2;
"""
#: Cells that make a message present, and what they hold.
CELLS: dict[str, Any] = {
    "outer.middle.inner.note": "deep",
    "outer.middle.inner.tags": ["t"],
    "outer.middle.note": "middle",
    "outer.other.name": "other",
    "outer.flag": True,
    "outer.note": "outer",
}
#: The other values of a message that is present, by the path of the message.
FILLED: dict[str, dict[str, Any]] = {
    "outer": {"flag": False},
    "outer.other": {"tags": [], "name": ""},
    "outer.middle": {"words": {}},
    "outer.middle.inner": {"tags": [], "name": ""},
}


@pytest.fixture(scope="module")
def probes(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return compiled(tmp_path_factory.mktemp("nested"), HEAD + MODEL + COMMON)["probes"]


def expected(given: dict[str, Any]) -> dict[str, Any]:
    """The leaves of the outer message, by what is given of them."""
    full = dict(given)
    for message, values in FILLED.items():
        if any(path.startswith(f"{message}.") for path in given):
            full |= {p: v for n, v in values.items() if (p := f"{message}.{n}") not in full}
    return full


def subsets() -> list[dict[str, Any]]:
    """All choices of cells."""
    every = [itertools.combinations(CELLS.items(), n) for n in range(len(CELLS) + 1)]
    return [dict(chosen) for chosen in itertools.chain(*every)]


def row_of(dataset: Dataset, given: dict[str, Any]) -> list[Any]:
    """A row of all fields that has these values only, and a key."""
    return [given.get(f.path, "k" if f.key else None) for f in dataset.fields]


def test_completed_rows(probes: Dataset) -> None:
    complete = make_completer(probes, probes.fields)
    for given in subsets():
        by_files, by_store = row_of(probes, given), stored_row(probes.fields, row_of(probes, given))
        complete(by_files)
        Defaults.of(probes).complete(by_store)
        full = row_of(probes, expected(given))
        assert by_files == full, given
        assert by_store == stored_row(probes.fields, full), given


def test_rows_of_the_kernel(probes: Dataset) -> None:
    paths = ["probe_id", *CELLS]
    lines = [",".join(paths)]
    for number, given in enumerate(subsets()):
        cells = {p: '"[""t""]"' if v == ["t"] else str(v).lower() for p, v in given.items()}
        lines.append(",".join([f"k{number}", *(cells.get(p, "") for p in CELLS)]))
    reader = open_reader("CSV", probes, probes.fields)
    reader.write_as(TIME, REVISION)
    data = "\n".join([*lines, ""]).encode()
    batches = [*reader.feed(data), *reader.close()]
    (fresh,) = [batch.fresh for batch in batches if batch.fresh]
    assert len(fresh) == len(subsets()), "the kernel takes every row"
    assert not [batch.bad for batch in batches if batch.bad]
    rows = [
        stored_row(probes.fields, row_of(probes, {"probe_id": f"k{n}"} | expected(given)))
        for n, given in enumerate(subsets())
    ]
    images = Stager.of(probes).new(probes.fields, rows, TIME, REVISION)[1]
    for given, image in zip(subsets(), images, strict=True):
        assert image in bytes(fresh.entries), given
