"""Everything that is written can be read, with the same values in every format."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree

from penstockd.catalog import values
from penstockd.catalog.model import Dataset, Field, Kind
from rows_drawn import row
from shelf import Shelf, read, writable

FORMATS = ("CSV", "NDJSON", "JSON")


async def round_trip(
    shelf: Shelf, things: Dataset, rows: list[list[Any]], name: str, chunk: int
) -> list[tuple[Field, Any, Any]]:
    """All values of rows that are exported and read again: the field, before, and after."""
    fields = writable(things)
    await shelf.fill(rows, fields)
    document, count = await shelf.export(name, fields, chunk)
    reader, found, bad = read(name, things, document, chunk)
    assert (count, bad, reader.fields) == (len(rows), [], fields)
    return [
        each
        for expected, got in zip(rows, found, strict=True)
        for each in zip(fields, expected, got, strict=True)
    ]


def sample(things: Dataset, count: int) -> list[list[Any]]:
    """Rows that Hypothesis generates, the same in each run."""
    rows: list[list[Any]] = []

    @settings(max_examples=count, derandomize=True)
    @given(st.data())
    def draw(data: st.DataObject) -> None:
        rows.append(data.draw(row(things, writable(things))))

    draw()
    return rows


@pytest.fixture(scope="module")
def rows(things: Dataset) -> list[list[Any]]:
    """Rows that hold every kind of value."""
    return sample(things, 150)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("chunk", [1 << 20, 7, 1000])
async def test_reading_what_was_written_gives_the_same_values(
    shelf: Shelf, things: Dataset, rows: list[list[Any]], name: str, chunk: int
) -> None:
    for field, before, after in await round_trip(shelf, things, rows, name, chunk):
        assert same(field, before, after), (field.path, before, after)


async def test_every_format_prints_the_same_values(
    shelf: Shelf, things: Dataset, rows: list[list[Any]]
) -> None:
    fields = writable(things)
    await shelf.fill(rows, fields)
    table = (await shelf.export("CSV", fields))[0].decode()
    cells = list(csv.reader(io.StringIO(table, newline="")))
    document = (await shelf.export("JSON", fields))[0]
    array, exact = json.loads(document), json.loads(document, parse_float=str, parse_int=str)
    lines = (await shelf.export("NDJSON", fields))[0].decode().split("\n")
    xml = etree.fromstring((await shelf.export("XML", fields))[0])
    assert cells[0] == [f.path for f in fields]
    assert xml.tag == "things" and {e.tag for e in xml} <= {"thing"}
    assert lines.pop() == "" and [json.loads(line) for line in lines] == array
    for i, expected in enumerate(rows):
        for j, field in enumerate(fields):
            value, cell = expected[j], cells[i + 1][j]
            if field.kind is Kind.STRUCT:
                text = from_xml(xml[i], field)
                assert None in (text, value) or json.loads(text) == value, field.path
                assert (text is None) == (value is None) == (cell == ""), field.path
                assert at(array[i], field) == json.loads(cell or "null") == value, field.path
                continue
            if field.repeated:
                assert at(array[i], field) == json.loads(cell) == value, field.path
                assert from_xml(xml[i], field) == leaves(value), field.path
                continue
            text = None if value is None else values.to_text(field, value)
            if field.kind in (Kind.FLOAT, Kind.DOUBLE) and text is not None:
                # PostgreSQL prints one digit more if the shortest text lies midway between two
                # floats.
                assert values.from_text(field, cell) == value
                text = cell
            bare = isinstance(value, bool) or value is None
            assert at(exact[i], field) == (value if bare else text), field.path
            assert cell == (text or ""), field.path
            assert from_xml(xml[i], field) == text, field.path


def same(field: Field, before: Any, after: Any) -> bool:
    if field.kind is Kind.DECIMAL and before is not None:
        return str(before) == str(after)
    return type(before) is type(after) and before == after


def at(record: Any, field: Field) -> Any:
    for step in field.json_steps:
        record = None if record is None else record[step]
    return record


def leaves(value: Any) -> list[str]:
    """The texts in a repeated value, sorted, numbers as XML prints them."""
    if isinstance(value, dict):
        return sorted(t for k, v in value.items() for t in leaves(v))
    if isinstance(value, list):
        return sorted(t for v in value for t in leaves(v))
    return [str(float(value)) if isinstance(value, int | float) else str(value)]


def from_xml(record: Any, field: Field) -> Any:
    for step in field.steps:
        record = None if record is None else record.find(step)
    if record is None:
        return None
    if not field.repeated:
        return record.text or ""
    return sorted(end_text(e) for e in record.iter() if len(e) == 0 and not empty(e, record))


def end_text(element: Any) -> str:
    text = element.text or ""
    return str(float(text)) if element.getparent().tag == "extra_sizes" else text


def empty(element: Any, record: Any) -> bool:
    """Whether this is a list or map without elements rather than an empty text."""
    return element is record or (element.tag in ("parts", "extra_sizes") and not element.text)
