"""Where a page ends: it tells nothing of values that are not shown, and its reply has room."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from penstockd.catalog import Catalog, Dataset
from penstockd.catalog.record import Codec
from penstockd.policy import pages
from penstockd.policy.model import Action, Grant, Mask
from penstockd.policy.pages import Query, RowSizes, read_page
from penstockd.policy.read import ExportQuery, Page, Scan
from penstockd.policy.rendering import render_message
from penstockd.policy.view import View
from penstockd.store.database import Database
from penstockd.store.tables import Tables, empty_value, row_size
from worlds import HEAD, cases, catalog_of, compiled, random_grants

ROWS, ROOM = 6, 50_000
PROBES = """
message Probe {
  option (penstock.options.v1.dataset) = {title: "Probes"};
  string probe_id = 1 [(penstock.options.v1.field).key = true];
  repeated double doubles = 2;
  repeated int64 numbers = 3;
  repeated int32 small_numbers = 4;
  map<int32, int32> counters = 5;
  repeated bool flags = 6;
  optional string exact = 7 [(penstock.options.v1.field).decimal = {precision: 38, scale: 9}];
  string source = 90;
  string source_id = 91;
  google.protobuf.Timestamp create_time = 92 [(penstock.options.v1.field).output_only = true];
  google.protobuf.Timestamp update_time = 93 [(penstock.options.v1.field).output_only = true];
  string etag = 94 [(penstock.options.v1.field).output_only = true];
}
"""


def view_of(catalog: Catalog, tables: Tables, mask: Mask) -> View:
    """Customers with one mask for their notes, and all else in the clear."""
    dataset = catalog["customers"]
    classes = dict.fromkeys({f.field_class for f in dataset.fields}, Mask.CLEAR)
    actions = frozenset({Action.READ})
    grant = Grant("reader", "customers", actions, classes, {"notes": mask}, "")
    return View(dataset, catalog, tables, [grant], revision=1, mask_key=b"k" * 32)


async def fill(database: Database, dataset: Dataset, notes: int) -> None:
    """Records with notes of so many bytes."""
    given = {"customer_id": "'c' || n", "notes": f"repeat('x', {notes})"}
    values = {
        f.column: given.get(f.path) or empty_value(f) or "now()"
        for f in dataset.fields
        if not f.nullable or f.path in given
    }
    names = ", ".join(f'"{name}"' for name in values)
    chosen = ", ".join(values.values())
    async with database.transaction() as connection:
        await connection.execute("DELETE FROM data.customers")
        sql = f"SELECT {chosen} FROM generate_series(1, {ROWS}) AS n"
        await connection.execute(f"INSERT INTO data.customers ({names}) {sql}")


async def ends_of(database: Database, view: View) -> list[Any]:
    """The rows of a page, of a page as a file, and the sizes of a snapshot's rows."""
    page = await read_page(database, view, Query(), 100, render=render_message)
    read = ExportQuery(view, [view.key_column], filter="", order_by="")
    fitting = read.fitting(view.fields(), 100, None)
    sizes = Scan(view, view.fields(), "").sizes
    async with database.connection() as connection:
        count = await connection.fetchval(fitting.text, *fitting.arguments(room=ROOM))
        rows = await connection.fetch(sizes.text, *sizes.arguments())
    return [len(page.records), count, [row[0] for row in rows]]


async def test_a_page_ends_where_it_would_whatever_masked_values_hold(
    database: Database, catalog: Catalog, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "room_of", lambda surface: ROOM)
    found: dict[Mask, list[Any]] = {mask: [] for mask in (Mask.CLEAR, Mask.HASH, Mask.NULL)}
    found[Mask.PARTIAL] = []
    for notes in (10, 100_000):
        await fill(database, catalog["customers"], notes)
        for mask, ends in found.items():
            ends.append(await ends_of(database, view_of(catalog, tables, mask)))
    whole = found.pop(Mask.CLEAR)
    assert [ends[:2] for ends in whole] == [[ROWS, ROWS], [1, 1]], "the control: it is shown"
    for mask, (short, long) in found.items():
        assert short == long and short[:2] == [ROWS, ROWS], mask


def test_no_read_has_the_stored_size_of_what_is_not_whole(tmp_path: Path) -> None:
    catalog = catalog_of(tmp_path)
    tables, seen = Tables(catalog), 0
    for seed, rng in cases(20261130, 40):
        for dataset in catalog:
            grants = random_grants(catalog, dataset, rng, [])
            view = View(dataset, catalog, tables, grants, revision=1, mask_key=b"k")
            fields = view.fields()
            if not fields:
                continue
            read = ExportQuery(view, [view.key_column], filter="", order_by="")
            texts = [
                Page(view, "", "", "").statement(None).text,
                Scan(view, fields, "").sizes.text,
                read.fitting(fields, 10, None).text,
            ]
            for field in fields:
                stored = row_size([field])
                if stored != "0":
                    whole = view.is_whole(field)
                    assert [stored in text for text in texts] == [whole] * 3, (seed, field.path)
                    seen += not whole
    assert seen > 100


def many(item: str) -> str:
    """A list of a thousand, as the database writes it."""
    return f"[{', '.join([item] * 1000)}]"


async def test_no_record_of_numbers_is_larger_than_its_estimate(tmp_path: Path) -> None:
    dataset = compiled(tmp_path, HEAD + PROBES)["probes"]
    values: dict[str, list[Any]] = {
        "doubles": [many("1.0"), many("1"), "[]"],
        "numbers": [many('"-1"'), many("-1")],
        "small_numbers": [many("-1"), "[-1]"],
        "counters": ["{" + ", ".join(f'"{-n}": -1' for n in range(1, 500)) + "}", "{}"],
        "flags": [many("true")],
        "exact": [Decimal("-" + "9" * 29 + "." + "9" * 9), Decimal(0), None],
    }
    for path, held in values.items():
        fields = [dataset.by_path["probe_id"], dataset.by_path[path]]
        codec, sizes = Codec(dataset, fields), RowSizes(fields, "GRPC")
        rows = [("p", value) for value in held]
        for row, most in zip(rows, await sizes.measure_all(rows), strict=True):
            # In a list, a record has a tag and a length of its own.
            assert codec.message(row).ByteSize() + 6 <= most, (path, str(row)[:80])
