"""XLSX as spreadsheets write it: what its cells mean, and what the hub refuses."""

from __future__ import annotations

import io
import re
import zipfile
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import openpyxl
import pytest
from openpyxl.utils.datetime import MAC_EPOCH

from penstockd import formats
from penstockd.catalog.model import Dataset
from penstockd.formats import FormatError, ReadOptions
from shelf import read

SHEET = "xl/worksheets/sheet1.xml"


def workbook(*rows: list[Any], change: Callable[[Any], None] | None = None) -> bytes:
    """A workbook whose first sheet has some rows; ``change`` may change it before it is saved."""
    book, output = openpyxl.Workbook(), io.BytesIO()
    for row in rows:
        book.active.append(row)
    if change:
        change(book)
    book.save(output)
    return output.getvalue()


def edited(data: bytes, name: str, edit: Callable[[bytes], bytes]) -> bytes:
    """The workbook with one of its parts changed."""
    output = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(output, "w") as new:
        for entry in old.namelist():
            part = old.read(entry)
            new.writestr(entry, edit(part) if entry == name else part, zipfile.ZIP_DEFLATED)
    return output.getvalue()


def rows_of(
    things: Dataset, data: bytes, **options: Any
) -> tuple[list[dict[str, Any]], list[formats.BadRow]]:
    reader, rows, bad = read("XLSX", things, data, 1 << 20, ReadOptions(**options))
    names = [f.path for f in reader.fields]
    return [dict(zip(names, row, strict=True)) for row in rows], bad


#: A cell, the field that takes it, and the value.
CELLS: list[tuple[Any, str, Any]] = [
    ("text", "title", "text"),
    ("  kept \n as it is ", "title", "  kept \n as it is "),
    ("_x000D_ and _x005F_x0041_", "title", "\r and _x0041_"),
    (2024, "title", "2024"),
    (1.5, "title", "1.5"),
    (date(2024, 2, 29), "title", "2024-02-29"),
    (True, "flag", True),
    (False, "flag", False),
    ("t", "flag", True),
    (7, "large", 7),
    (7.0, "large", 7),
    ("9223372036854775807", "large", 2**63 - 1),
    (12.34, "price", Decimal("12.34")),
    (0.1, "price", Decimal("0.1")),
    (1e-7, "price", Decimal("0.0000001")),
    (1e21, "price", Decimal(10**21)),
    (-5, "price", Decimal(-5)),
    ("12.340", "price", Decimal("12.340")),
    (2.5, "weight", 2.5),
    (date(2024, 2, 29), "day", date(2024, 2, 29)),
    (date(1900, 1, 1), "day", date(1900, 1, 1)),
    (date(1900, 2, 28), "day", date(1900, 2, 28)),
    (date(1900, 3, 1), "day", date(1900, 3, 1)),
    (date(9999, 12, 31), "day", date(9999, 12, 31)),
    (datetime(2024, 2, 29, 0, 0), "day", date(2024, 2, 29)),
    ("2024-02-29", "day", date(2024, 2, 29)),
    (datetime(2024, 2, 29, 12, 30, 1, 250_000), "seen_at",
     datetime(2024, 2, 29, 11, 30, 1, 250_000, tzinfo=UTC)),
    (date(2024, 2, 29), "seen_at", datetime(2024, 2, 28, 23, tzinfo=UTC)),
    ("2024-02-29T12:30:00Z", "seen_at", datetime(2024, 2, 29, 12, 30, tzinfo=UTC)),
    ('["a", "b"]', "labels", ["a", "b"]),
    (None, "remark", None),
]  # fmt: skip


def test_cells_are_read_by_the_type_of_their_field(things: Dataset) -> None:
    for epoch in (None, MAC_EPOCH):
        cells = [c for c in CELLS if epoch is None or not (isinstance(c[0], date) and _early(c[0]))]
        fields = sorted({field for _, field, _ in cells})
        rows = [[f"k{i}"] + [cell if f == field else None for f in fields]
                for i, (cell, field, _) in enumerate(cells)]  # fmt: skip

        def change(book: Any, epoch: Any = epoch) -> None:
            if epoch is not None:
                book.epoch = epoch

        data = workbook(["thing_id", *fields], *rows, change=change)
        found, bad = rows_of(things, data, time_zone="Europe/Berlin")
        assert bad == []
        for row, (cell, field, value) in zip(found, cells, strict=True):
            assert row[field] == value, (epoch, cell, field)
            assert type(row[field]) is type(value)


def _early(day: date) -> bool:
    return (day.year, day.month) < (1904, 2)


@pytest.mark.parametrize(
    ("cell", "field"),
    [
        (1.5, "large"),
        (date(2024, 2, 29), "large"),
        (date(2024, 2, 29), "price"),
        (1, "flag"),
        (45000, "day"),  # a number that no format says is a day
        (datetime(2024, 2, 29, 12, 30), "day"),
        (datetime(2024, 2, 29, 12, 30), "seen_at"),  # no zone is said here
        (timedelta(hours=3), "seen_at"),
        ("bad\x00".replace("\x00", "_x0001_"), "title"),
    ],
)
def test_other_cells_are_bad_rows(things: Dataset, cell: Any, field: str) -> None:
    data = workbook(["thing_id", field], ["a", None], ["b", cell], ["c", None])
    if field == "title":
        data = workbook(["thing_id", field], ["a", ""], ["b", cell], ["c", ""])
    found, bad = rows_of(things, data)
    assert [r["thing_id"] for r in found] == ["a", "c"]
    assert [(b.row, b.field, b.key) for b in bad] == [(2, field, "b")]


def test_only_the_first_sheet_and_its_rows_with_values_count(things: Dataset) -> None:
    def change(book: Any) -> None:
        book.create_sheet("other").append(["nothing"])

    data = workbook(
        ["title", None, "thing_id", None], [None], ["x", None, "a"], [], ["y", None, "b"],
        change=change,
    )  # fmt: skip
    with pytest.raises(FormatError, match="unknown column ''"):
        rows_of(things, data)
    data = workbook(["title", "thing_id", None], [None], ["x", "a"], [], ["y", "b"], change=change)
    found, bad = rows_of(things, data)
    assert [(r["title"], r["thing_id"]) for r in found] == [("x", "a"), ("y", "b")]
    assert bad == []
    _, bad = rows_of(things, workbook(["thing_id"], ["a", None, "beside"]))
    assert [b.reason for b in bad] == ["has 3 cells, the header 1"]


def test_a_formula_counts_as_its_stored_value(things: Dataset) -> None:
    data = workbook(["thing_id", "price", "title"], ["a", "=1.5*2", '="x"&"y"'], ["b", 4, "z"])
    with pytest.raises(FormatError, match="row 1: has a formula without a stored value at B2"):
        rows_of(things, data)

    def store(part: bytes) -> bytes:
        # How an empty element looks depends on the library that writes XML.
        part = re.sub(rb"<f>1\.5\*2</f><v ?(/>|></v>)", b"<f>1.5*2</f><v>3</v>", part)
        text = b'<c r="C2" t="str"><f>"x"&amp;"y"</f><v>xy</v></c>'
        return re.sub(rb'<c r="C2">.*?</c>', text, part)

    found, bad = rows_of(things, edited(data, SHEET, store))
    assert [(r["price"], r["title"]) for r in found] == [(Decimal(3), "xy"), (Decimal(4), "z")]
    assert bad == []


def test_an_error_in_a_cell_is_named(things: Dataset) -> None:
    data = workbook(["thing_id", "title"], ["a", "x"], ["b", "#DIV/0!"])
    with pytest.raises(FormatError, match="row 2: has the error #DIV/0! at B3"):
        rows_of(things, data)


def test_what_is_no_workbook_is_refused(things: Dataset) -> None:
    data = workbook(["thing_id"], ["a"])
    with pytest.raises(FormatError, match="is not XLSX"):
        rows_of(things, b"thing_id\na\n")
    with pytest.raises(FormatError, match="ends before its directory") as refused:
        rows_of(things, data[:-30])
    assert refused.value.truncated
    with pytest.raises(FormatError, match="damaged or not XLSX"):
        rows_of(things, edited(data, SHEET, lambda part: part[: len(part) // 2]))
    with pytest.raises(FormatError, match="damaged or not XLSX"):
        rows_of(things, edited(data, "xl/workbook.xml", lambda part: b""))
    with pytest.raises(FormatError, match="sheet is empty"):
        rows_of(things, workbook())


def test_a_bomb_is_refused(things: Dataset) -> None:
    """The hub refuses zips that unpack to far more than their size, whether they declare it or not,
    and XML entities."""
    data = workbook(["thing_id"], ["a"])
    large = edited(data, SHEET, lambda part: part.replace(b"<sheetData>", b" " * (200 << 20)))
    assert len(large) < 1 << 20
    with pytest.raises(FormatError, match="decompresses to more than 300 times its size"):
        rows_of(things, large)
    # A false size does not help: the reader never reads more than the declared size.
    size = zipfile.ZipFile(io.BytesIO(large)).getinfo(SHEET).file_size
    lie = large.replace(size.to_bytes(4, "little"), (1 << 20).to_bytes(4, "little"))
    assert lie != large
    with pytest.raises(FormatError):
        rows_of(things, lie)
    entities = b'<!DOCTYPE w [<!ENTITY a "aaaaaaaaaa">' + b"".join(
        b'<!ENTITY %c "%s">' % (98 + i, b"&%c;" % (97 + i) * 10) for i in range(9)
    )
    bomb = edited(
        workbook(["thing_id"], ["planted"]),
        SHEET,
        lambda part: entities + b"]>" + part.replace(b"planted", b"&j;"),
    )
    assert b"&j;" in zipfile.ZipFile(io.BytesIO(bomb)).read(SHEET)
    with pytest.raises(FormatError):
        rows_of(things, bomb)


def sharing(text: str, rows: int) -> bytes:
    """A workbook of many rows that share one long text, which the file holds once."""
    part = (
        b'<Override PartName="/xl/sharedStrings.xml" ContentType="application/vnd.'
        b'openxmlformats-officedocument.spreadsheetml.sharedStrings+xml"/></Types>'
    )
    data = workbook(["thing_id", "title"], *([f"t{i}", "shared"] for i in range(rows)))
    inline, reference = b't="inlineStr"><is><t>shared</t></is>', b't="s"><v>0</v>'
    data = edited(data, SHEET, lambda sheet: sheet.replace(inline, reference))
    data = edited(data, "[Content_Types].xml", lambda types: types.replace(b"</Types>", part))
    output = io.BytesIO(data)
    with zipfile.ZipFile(output, "a", zipfile.ZIP_DEFLATED) as book:
        space = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
        book.writestr("xl/sharedStrings.xml", f'<sst xmlns="{space}"><si><t>{text}</t></si></sst>')
    return output.getvalue()


def test_a_text_that_many_cells_share_counts_each_time(things: Dataset) -> None:
    """The parts of the zip are small; only the rows show how much the file expands to."""
    few, _ = rows_of(things, sharing("x" * 30_000, 10))
    assert [row["title"] for row in few] == ["x" * 30_000] * 10
    with pytest.raises(FormatError, match="expands to more than 300 times its size"):
        rows_of(things, sharing("x" * 30_000, 700))


def test_a_row_is_no_wider_than_a_header_may_be(things: Dataset) -> None:
    def cell_in_last_column(part: bytes) -> bytes:
        return part.replace(b"</row></sheetData>", b'<c r="XFD2"%s</row></sheetData>' % content)

    data = workbook(["thing_id"], ["a"])
    content = b' s="0"/>'  # formatted, without a value
    assert rows_of(things, edited(data, SHEET, cell_in_last_column))[0][0]["thing_id"] == "a"
    content = b"><v>1</v></c>"
    with pytest.raises(FormatError, match="row 1: has more than 10000 columns"):
        rows_of(things, edited(data, SHEET, cell_in_last_column))
