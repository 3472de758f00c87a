"""How an import understands the columns of its file."""

from __future__ import annotations

import tracemalloc

import pytest

from penstockd.catalog.leniency import MOST_NAMES, NAME_CHARACTERS
from penstockd.catalog.model import Dataset
from penstockd.formats import ReadOptions
from penstockd.writes.preview import ColumnPreview, Preview
from shelf import read


def previewed(things: Dataset, data: bytes, *, ignore_unknown: bool) -> list[ColumnPreview]:
    """The columns of a file without a field; a preview always reads with ignore_unknown."""
    reader, _, _ = read("CSV", things, data, options=ReadOptions(ignore_unknown=True))
    columns = Preview(reader, ignore_unknown=ignore_unknown).columns()
    return [c for c in columns if not c.field]


@pytest.mark.parametrize("ignore_unknown", [True, False])
def test_only_an_index_is_called_one(things: Dataset, ignore_unknown: bool) -> None:
    """Names are counted up to a number and a length, but they are unknown beyond these, too."""
    unknown = [f"x{i}" for i in range(MOST_NAMES + 20)] + ["y" * (NAME_CHARACTERS + 1)]
    names = ["", "thing_id", *unknown]
    lines = [",".join(names), ",".join(["0", "a", *("v" for _ in unknown)])]
    found = previewed(things, "\n".join(lines).encode(), ignore_unknown=ignore_unknown)
    assert [c.name for c in found] == ["", *(name[:NAME_CHARACTERS] for name in unknown)]
    index, *others = found
    assert index.note == "is an index, and ignored"
    wanted = "and ignored" if ignore_unknown else "refused, unless"
    assert all("is not a field of the dataset" in c.note and wanted in c.note for c in others)
    assert [c.refused for c in others[:MOST_NAMES]] == [int(not ignore_unknown)] * MOST_NAMES


def test_names_that_a_file_chooses_are_not_kept(things: Dataset) -> None:
    reader, _, _ = read("CSV", things, b"thing_id,title\na,b\n")
    preview = Preview(reader, ignore_unknown=False)
    preview.count_refused("title[3]")
    tracemalloc.start()
    try:
        for i in range(20_000):
            preview.count_refused(f"{i:0200}")
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 1 << 20
    assert {c.name: c.refused for c in preview.columns()} == {"thing_id": 0, "title": 1}
