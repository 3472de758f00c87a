"""Files that other tools wrote are loaded and compared, value by value.

pandas, polars, DuckDB, openpyxl and XlsxWriter wrote the files in ``written``; ``written_files.py``
has the records, and writes the files anew.
"""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from penstockd.catalog.model import Dataset
from penstockd.formats import ReadOptions, format_of_suffix
from shelf import read
from written_files import LOCAL, RECORDS

FOLDER = Path(__file__).with_name("written")
FILES = sorted(path.name for path in FOLDER.iterdir())
#: What a tool itself has lost, by file, key and field: the file holds this value.
LOST: dict[tuple[str, str, str], Any] = {
    # A column of whole numbers with a gap becomes one of floats on its way to a sheet.
    ("pandas-openpyxl-local.xlsx", "a", "large"): 2**53,
    ("pandas-xlsxwriter-local.xlsx", "a", "large"): 2**53,
}
#: The rows that are refused, by file: these tools quote NULL, which is then an empty text.
REFUSED = {"pandas-quoted.csv": ("c", "large"), "polars-quoted.csv": ("c", "large")}


def test_the_files_are_those_of_all_tools() -> None:
    assert len(FILES) >= 40
    tools = {name.replace(".", "-").partition("-")[0] for name in FILES}
    assert tools == {
        "duckdb", "mysql", "openpyxl", "pandas", "polars", "postgresql", "xlsxwriter",
    }  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_another_tool_holds_the_same_values(things: Dataset, name: str) -> None:
    options = ReadOptions(
        time_zone=LOCAL if "local" in name else "", delimiter="pipe" if "pipe" in name else ""
    )
    data = (FOLDER / name).read_bytes()
    reader, rows, bad = read(format_of_suffix(name), things, data, 1 << 20, options)
    refused = REFUSED.get(name)
    assert [(b.key, b.field) for b in bad] == ([refused] if refused else [])
    paths = [f.path for f in reader.fields]
    found = [dict(zip(paths, row, strict=True)) for row in rows]
    wanted = [r for r in RECORDS if not refused or r["thing_id"] != refused[0]]
    assert [r["thing_id"] for r in found] == [r["thing_id"] for r in wanted]
    for got, record in zip(found, wanted, strict=True):
        for field, value in record.items():
            value = LOST.get((name, record["thing_id"], field), value)
            if refused and value is None:
                value = ""
            assert got[field] == value, (field, got[field])
            assert type(got[field]) is type(value), field


def test_the_comparison_can_fail(things: Dataset) -> None:
    """Negative control: a zone that is not that of the file moves its times."""
    data = (FOLDER / "duckdb-local.csv").read_bytes()
    _, rows, bad = read("CSV", things, data, 1 << 20, ReadOptions(time_zone="UTC"))
    assert bad == [] and rows[0][-1] != RECORDS[0]["seen_at"]
    assert rows[0][0] == RECORDS[0]["thing_id"] and Decimal("12.34") in rows[0]
