"""The column-wise serialiser agrees with protobuf itself."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

from penstockd.catalog import Dataset
from penstockd.catalog.load import load_catalog
from penstockd.catalog.record import Codec
from penstockd.catalog.wire import WireCodec
from penstockd.demo import DATASETS, generate_records
from penstockd.formats import open_reader
from penstockd.resources import find_descriptors
from penstockd.store.rows import Defaults, stored_row

CATALOG = load_catalog(find_descriptors())
TIME = dt.datetime(2024, 2, 29, 23, 59, 59, 999_999, tzinfo=dt.UTC)


def full_rows(dataset: Dataset, customers: int) -> list[list[object]]:
    """Demo records as full rows."""
    source = open_reader("CSV", dataset, dataset.fields)
    rows = [
        r for c in generate_records(dataset.name, customers) for b in source.feed(c) for r in b.rows
    ]
    rows += [r for b in source.close() for r in b.rows]
    places = [dataset.fields.index(f) for f in source.fields]
    defaults = Defaults.of(dataset)
    found = []
    for row in rows:
        full = [defaults.value(i) for i in range(len(dataset.fields))]
        for place, value in zip(places, stored_row(source.fields, list(row)), strict=True):
            full[place] = value
        defaults.complete(full)
        for path in ("create_time", "update_time"):
            full[dataset.fields.index(dataset.by_path[path])] = TIME
        found.append(full)
    return found


def test_images_read_back_as_the_messages_of_their_rows() -> None:
    for name in DATASETS:
        dataset = CATALOG[name]
        rows = full_rows(dataset, 200)
        assert len(rows) >= 50
        codec = Codec(dataset, dataset.fields)
        images = WireCodec(dataset).images([list(c) for c in zip(*rows, strict=True)])
        for row, image in zip(rows, images, strict=True):
            assert dataset.message_class.FromString(image) == codec.message(row)


def test_a_wrong_value_would_be_noticed() -> None:
    dataset = CATALOG["customers"]
    row = full_rows(dataset, 1)[0]
    at = dataset.fields.index(dataset.by_path["credit_limit"])
    other = list(row)
    other[at] = Decimal("0.01")
    image = WireCodec(dataset).images([[v] for v in other])[0]
    codec = Codec(dataset, dataset.fields)
    assert dataset.message_class.FromString(image) != codec.message(row)
