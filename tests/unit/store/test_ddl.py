"""The DDL of tables that is derived from the catalog, word for word.

PENSTOCK_REWRITE_GOLDEN=1 rewrites the golden files; read the difference before you commit it.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from penstockd.catalog import Catalog
from penstockd.store.columns import table_ddl
from penstockd.store.tables import Tables

GOLDEN = Path(__file__).with_name("golden")
DATASETS = ["contacts", "customers", "interactions", "orders", "products"]


@pytest.mark.parametrize("name", DATASETS)
def test_the_ddl_is_the_golden_one(catalog: Catalog, name: str) -> None:
    ddl = table_ddl(catalog[name], Tables(catalog)[name]) + ";\n"
    file = GOLDEN / f"{name}.sql"
    if os.environ.get("PENSTOCK_REWRITE_GOLDEN"):
        file.write_text(ddl)
    assert ddl == file.read_text()


def test_every_dataset_has_a_golden_file(catalog: Catalog) -> None:
    assert sorted(d.name for d in catalog) == DATASETS
    assert sorted(file.stem for file in GOLDEN.iterdir()) == DATASETS
