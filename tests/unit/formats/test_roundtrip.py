"""What is written can be read, and is the same in every format."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lxml import etree

from penstockd.catalog import values
from penstockd.catalog.model import Dataset, Field, Kind

from .conftest import Shelf, read, writable
from .strategies import row

FORMATS = ("CSV", "NDJSON", "JSON")


def sample(things: Dataset, count: int, seed: int) -> list[list[Any]]:
    """Random rows; the seed makes them again."""
    print(f"seed {seed}")
    rows: list[list[Any]] = []

    @settings(
        max_examples=count,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def draw(data: st.DataObject) -> None:
        rows.append(data.draw(row(things, writable(things))))

    draw()
    return rows


@pytest.fixture(scope="module")
def rows(things: Dataset) -> list[list[Any]]:
    """Rows that hold every kind of value."""
    return sample(things, 300, 1)


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("chunk", [1 << 20, 7, 1000])
async def test_reading_what_was_written_gives_the_same_values(
    shelf: Shelf, things: Dataset, rows: list[list[Any]], name: str, chunk: int
) -> None:
    fields = writable(things)
    await shelf.fill(rows, fields)
    document, count = await shelf.export(name, fields, chunk)
    reader, found, bad = read(name, things, document, chunk)
    assert (count, bad, reader.fields) == (len(rows), [], fields)
    for expected, got in zip(rows, found, strict=True):
        for field, before, after in zip(fields, expected, got, strict=True):
            assert same(field, before, after), (field.path, before, after)


async def test_every_format_prints_the_same_values(
    shelf: Shelf, things: Dataset, rows: list[list[Any]]
) -> None:
    fields = writable(things)
    await shelf.fill(rows, fields)
    cells = list(
        csv.reader(io.StringIO((await shelf.export("CSV", fields))[0].decode(), newline=""))
    )
    array = json.loads((await shelf.export("JSON", fields))[0], parse_float=str, parse_int=str)
    lines = (await shelf.export("NDJSON", fields))[0].decode().split("\n")
    xml = etree.fromstring((await shelf.export("XML", fields))[0])
    assert cells[0] == [f.path for f in fields]
    assert xml.tag == "things" and {e.tag for e in xml} <= {"thing"}
    assert [json.loads(x, parse_float=str, parse_int=str) for x in lines[:-1]] == array
    for i, expected in enumerate(rows):
        for j, field in enumerate(fields):
            text = None if expected[j] is None else values.to_text(field, expected[j])
            assert at(array[i], field) == jsonish(field, expected[j])
            if field.repeated:
                if text is not None:
                    assert json.loads(cells[i + 1][j]) == json.loads(text)
                    assert from_xml(xml[i], field) == leaves(expected[j])
            else:
                assert cells[i + 1][j] == (text or "")
                assert from_xml(xml[i], field) == text, field.path


def same(field: Field, before: Any, after: Any) -> bool:
    if field.kind is Kind.DECIMAL and before is not None:
        return str(before) == str(after)
    return type(before) is type(after) and before == after


def at(record: Any, field: Field) -> Any:
    for step in field.json_steps:
        record = None if record is None else record[step]
    return record


def jsonish(field: Field, value: Any) -> Any:
    """As parsed with numbers kept as text."""
    if value is None or isinstance(value, bool):
        return value
    if field.repeated:
        return json.loads(values.to_text(field, value), parse_float=lambda t: num(t), parse_int=str)
    return values.to_text(field, value)


def num(text: str) -> str:
    return text


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
    ends = [e for e in record.iter() if e is not record and len(e) == 0]
    return sorted(e.text or "" for e in ends if e.text or e.tag not in CONTAINERS)


CONTAINERS = {"parts", "extra_sizes"}
