"""Rows with values that the model cannot express are reported with dataset, key and field."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from penstockd.catalog import Catalog
from penstockd.catalog.load import load_catalog
from penstockd.catalog.record import Codec
from penstockd.catalog.wire import WireCodec
from penstockd.errors import RecordUnreadable
from penstockd.resources import find_descriptors
from worlds import COMMON, HEAD, compiled

Make = Callable[[Catalog, str, Sequence[str], Sequence[Any]], object]


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return load_catalog(find_descriptors())


def by_message(catalog: Catalog, name: str, paths: Sequence[str], row: Sequence[Any]) -> object:
    dataset = catalog[name]
    return Codec(dataset, [dataset.by_path[p] for p in paths]).message(row)


def by_column(catalog: Catalog, name: str, paths: Sequence[str], row: Sequence[Any]) -> object:
    dataset = catalog[name]
    columns = [[value, value] for value in row]
    return WireCodec(dataset, [dataset.by_path[p] for p in paths]).images(columns)


@pytest.mark.parametrize("make", [by_message, by_column])
@pytest.mark.parametrize(
    ("name", "path", "good", "bad"),
    [
        ("customers", "status", "ACTIVE", "GONE"),
        ("orders", "lines", '[{"quantity": 1}]', '[{"gone": 1}]'),
        ("products", "attributes", '{"a": "b"}', "[1]"),
        ("customers", "tags", '["a"]', "[1]"),
        ("customers", "tags", '["a"]', '{"a": 1}'),
    ],
)
def test_a_value_that_the_model_cannot_say(
    catalog: Catalog, make: Make, name: str, path: str, good: Any, bad: Any
) -> None:
    key = catalog[name].key.path
    make(catalog, name, [key, path], ["k1", good])
    with pytest.raises(RecordUnreadable) as raised:
        make(catalog, name, [key, path], ["k1", bad])
    assert raised.value.metadata == {"dataset": name, "key": "k1", "field": path}
    assert f"{name}/k1" in raised.value.message


def test_a_number_of_an_enum_that_has_no_name_any_more_stays_a_number(tmp_path: Path) -> None:
    """Images of the change log are of earlier models, too."""
    members = (
        "message Probe { option (penstock.options.v1.dataset) = {title: 'Probes'};"
        " enum E { NONE = 0; A = 1; } repeated E v = 2; map<string, E> w = 3;"
        " string probe_id = 1 [(penstock.options.v1.field).key = true];"
    )
    dataset = compiled(tmp_path, HEAD + members + COMMON)["probes"]
    record = dataset.message_class(v=[1, 7], w={"k": 7})
    codec = Codec(dataset, [dataset.by_path["v"], dataset.by_path["w"]])
    assert codec.row(record) == [["A", 7], {"k": 7}]


def test_a_message_that_holds_an_empty_list_is_present(tmp_path: Path) -> None:
    """As in the store: its other leaves are NULL, the list is not."""
    members = (
        "message Probe { option (penstock.options.v1.dataset) = {title: 'Probes'};"
        " message Inner { optional string a = 1; repeated int64 many = 2;"
        " map<string, bool> ways = 3; }"
        " Inner inner = 2; string probe_id = 1 [(penstock.options.v1.field).key = true];"
    )
    dataset = compiled(tmp_path, HEAD + members + COMMON)["probes"]
    paths = ["probe_id", "inner.a", "inner.many", "inner.ways"]
    fields = [dataset.by_path[p] for p in paths]
    record: Any = Codec(dataset, fields).message(["k", None, "[]", "{}"])
    assert record.HasField("inner")
    images = WireCodec(dataset, fields).images([["k"], [None], ["[]"], ["{}"]])
    assert images == [record.SerializeToString()]
    absent: Any = Codec(dataset, fields).message(["k", None, None, None])
    assert not absent.HasField("inner")
