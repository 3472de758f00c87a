"""The types of lists and maps in Parquet and Arrow contain no member that a View hides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from penstockd.catalog import Catalog, Dataset
from penstockd.formats.columns import arrow_schema, nested_columns
from penstockd.policy.model import Action, Mask
from penstockd.policy.view import View
from penstockd.store.tables import Tables
from worlds import cases, catalog_of, random_grants


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    return catalog_of(Path(tmp_path_factory.mktemp("model")))


def names_in(found: Any, path: str) -> set[str]:
    """The paths of all members in an Arrow type."""
    if pa.types.is_list(found):
        return names_in(found.value_type, path)
    if pa.types.is_map(found):
        return names_in(found.item_type, path)
    if not pa.types.is_struct(found):
        return {path}
    return {name for f in found for name in names_in(f.type, f"{path}.{f.name}")}


def types_of(dataset: Dataset, view: View, *, shown: bool) -> set[str]:
    fields = [view.shown(f) if shown else f for f in view.fields()]
    if not fields:
        return set()
    schema = arrow_schema(dataset, fields, nested_columns(fields))
    return {name for f in schema for name in names_in(f.type, f.name)}


def test_hidden_members_are_in_no_type(catalog: Catalog) -> None:
    tables, hidden = Tables(catalog), 0
    for seed, rng in cases(20261129, 60):
        for dataset in catalog:
            grants = random_grants(catalog, dataset, rng, [])
            view = View(
                dataset, catalog, tables, grants, revision=1, mask_key=b"k", on=[Action.READ]
            )
            gone = {f.path for f in dataset.every_field if view.mask(f) is Mask.HIDE}
            assert not types_of(dataset, view, shown=True) & gone, seed
            hidden += len(types_of(dataset, view, shown=False) & gone)
    assert hidden, "negative control: without the View they would be"
