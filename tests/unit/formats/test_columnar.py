"""Parquet and Arrow IPC output: the same values as in JSON, in the types of these formats."""

from __future__ import annotations

import base64
import io
import json
import math
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstockd import formats
from penstockd.catalog import values
from penstockd.catalog.model import Dataset, Field, Kind
from penstockd.formats import columns, parquet
from penstockd.native import column_plan
from shelf import HEAD, Shelf, copy, read, writable

from .test_roundtrip import round_trip, same, sample

FORMATS = ("PARQUET", "ARROW")


def table(name: str, document: bytes) -> pa.Table:
    """The table as a user's tool reads it, validated to the last offset."""
    if name == "ARROW":
        found = pa.ipc.open_stream(document).read_all()
    else:
        found = pq.read_table(io.BytesIO(document))
    found.validate(full=True)
    return found


@pytest.fixture(scope="module")
def rows(things: Dataset) -> list[list[Any]]:
    """Rows that hold every kind of value."""
    return sample(things, 120)


@pytest.mark.parametrize("name", FORMATS)
async def test_values_are_those_of_the_json_export(
    shelf: Shelf, things: Dataset, rows: list[list[Any]], name: str
) -> None:
    await shelf.fill(rows, writable(things))
    document, count = await shelf.export(name, things.fields, nested="json")
    found = table(name, document)
    assert count == found.num_rows == len(rows)
    assert found.schema.names == [f.path for f in things.fields]
    document = (await shelf.export("JSON", things.fields))[0]
    records = json.loads(document, parse_int=lambda t: -0.0 if t == "-0" else int(t))
    for field in things.fields:
        wanted = [member(record, field) for record in records]
        got = [json_form(field, v) for v in found.column(field.path).to_pylist()]
        assert got == wanted, field.path


@pytest.mark.parametrize("name", FORMATS)
async def test_lists_and_maps_are_nested_unless_they_are_asked_for_as_json(
    shelf: Shelf, things: Dataset, rows: list[list[Any]], name: str
) -> None:
    await shelf.fill(rows, writable(things))
    found = table(name, (await shelf.export(name, things.fields))[0])
    plain = table(name, (await shelf.export(name, things.fields, nested="json"))[0])
    repeated = [f.path for f in things.fields if f.repeated]
    nested = [p for p in repeated if pa.types.is_nested(found.schema.field(p).type)]
    assert {"labels", "words"} <= set(nested)
    assert not any(pa.types.is_nested(t) for t in plain.schema.types)
    for path in repeated:
        for one, text in zip(found[path].to_pylist(), plain[path].to_pylist(), strict=True):
            assert (one is None) == (text is None), path
            if path in nested and one is not None:
                assert len(one) == len(json.loads(text)), path


def member(record: Any, field: Field) -> Any:
    for step in field.json_steps:
        record = record and record[step]
    if field.kind in (Kind.FLOAT, Kind.DOUBLE) and isinstance(record, int | float):
        return repr(float(record))
    if field.kind is Kind.DECIMAL and record is not None:
        return Decimal(record)  # its trailing zeros come from the column's scale
    return record


def json_form(field: Field, value: Any) -> Any:
    """The proto JSON of a value that Arrow gave as Python's."""
    if value is None:
        return None
    forms: dict[Kind, Callable[[Any], Any]] = {
        Kind.INT64: str,
        Kind.UINT64: str,
        Kind.BYTES: lambda v: base64.b64encode(v).decode(),
        Kind.DATE: date.isoformat,
        Kind.TIMESTAMP: values.timestamp_text,
        Kind.LIST: json.loads,
        Kind.MAP: json.loads,
        Kind.STRUCT: json.loads,
        Kind.DOUBLE: shortest,
        Kind.FLOAT: lambda v: shortest(float(str(pa.scalar(v, pa.float32()).cast(pa.utf8())))),
    }
    return forms.get(field.kind, lambda v: v)(value)


def shortest(value: float) -> str:
    if math.isfinite(value):
        return repr(value)
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("chunk", [1 << 20, 999])
async def test_reading_what_was_written_gives_the_same_values(
    shelf: Shelf, things: Dataset, rows: list[list[Any]], name: str, chunk: int
) -> None:
    for field, before, after in await round_trip(shelf, things, rows, name, chunk):
        equal = before == after if field.kind is Kind.DECIMAL else same(field, before, after)
        assert equal, (field.path, before, after)


def test_the_types_of_every_kind(things: Dataset) -> None:
    schema = columns.arrow_schema(things, things.fields)
    found = {f.path: str(schema.field(f.path).type) for f in things.fields}
    assert {
        "thing_id": "string", "flag": "bool", "small": "int32", "large": "int64",
        "small_positive": "uint32", "large_positive": "uint64", "ratio": "float",
        "weight": "double", "raw_data": "binary", "color": "string", "price": "decimal128(38, 9)",
        "day": "date32[day]", "seen_at": "timestamp[us, tz=UTC]", "labels": "extension<arrow.json>",
        "words": "extension<arrow.json>", "home_place.line1": "string",
    }.items() <= found.items()  # fmt: skip
    assert [f.name for f in schema if not f.nullable] == ["thing_id"]
    # The kernel and Arrow know every kind.
    assert set(column_plan.COLUMN_CODES) == set(Kind)


@pytest.mark.parametrize("name", FORMATS)
async def test_null_is_not_empty(shelf: Shelf, things: Dataset, name: str) -> None:
    fields = [things.by_path[p] for p in ("thing_id", "remark", "raw_data", "home_place.line2")]
    await shelf.fill([["a", None, None, None], ["b", "", b"", ""]], tuple(fields))
    found = table(name, (await shelf.export(name, tuple(fields)))[0]).to_pylist()
    paths = [f.path for f in fields]
    assert [list(r.values()) for r in found] == [["a", None, None, None], ["b", "", b"", ""]]
    assert list(found[0]) == paths


async def test_extremes(shelf: Shelf, things: Dataset) -> None:
    paths = ("thing_id", "large_positive", "price", "day", "seen_at", "weight", "large")
    fields = tuple(things.by_path[p] for p in paths)
    most = Decimal("9" * 29 + "." + "9" * 9)
    moment = datetime(9999, 12, 31, 23, 59, 59, 999998, tzinfo=UTC)
    wanted_rows = [
        ["a", 2**64 - 1, most, date.max, moment, -0.0, -(2**63)],
        ["b", 0, most.copy_negate(), date.min, moment.replace(1), 5e-324, 2**63 - 1],
        ["c", 10**19, Decimal("0.000000001"), date(1970, 1, 1), moment, math.inf, -1],
        ["d", 9999, Decimal("-10000.0001"), date(1969, 12, 31), moment, 0.1, 0],
        ["e", 10**4, Decimal("1E+28"), date(2000, 1, 1), moment, 1e308, 1],
    ]
    await shelf.fill(wanted_rows, fields)
    for name in FORMATS:
        found = table(name, (await shelf.export(name, fields))[0])
        for row, wanted in zip(found.to_pylist(), wanted_rows, strict=True):
            got = list(row.values())
            assert got == wanted and repr(got[5]) == repr(wanted[5])


async def test_a_decimal_that_does_not_fit_is_said(shelf: Shelf, things: Dataset) -> None:
    fields = (things.key, things.by_path["price"])
    for value in ("1E29", "0.0000000001", "NaN"):
        await shelf.fill([["a", Decimal(1)], ["b", Decimal(value)]], fields)
        with pytest.raises(formats.FormatError, match="row 2: a value of 'price' cannot"):
            await shelf.export("ARROW", fields)


def text_rows(count: int) -> list[list[bytes | None]]:
    return [[b"k%06d" % i, None if i % 7 == 0 else b"\xc3\xa9" * (i % 50)] for i in range(count)]


@pytest.mark.parametrize("name", FORMATS)
def test_many_batches_and_groups(
    things: Dataset, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(columns, "BATCH_BYTES", 20_000)
    monkeypatch.setattr(columns, "FIRST_BYTES", 100)
    monkeypatch.setattr(parquet, "GROUP_BYTES", 100_000)
    fields = [things.by_path["thing_id"], things.by_path["remark"]]
    stream, documents = copy(text_rows(5000)), []
    for chunk in (1 << 20, 8191):
        writer = formats.open_writer(name, things, fields)
        document = writer.head()
        for at in range(0, len(stream), chunk):
            document += writer.feed(stream[at : at + chunk])
            assert writer.rows <= 5000
        document += b"".join(writer.ending())
        assert writer.rows == writer.keys.count == 5000
        documents.append(document)
    # The same bytes however the stream arrives, so that an export can be resumed.
    assert documents[0] == documents[1]
    found = table(name, documents[0])
    if name == "PARQUET":
        assert 2 < pq.ParquetFile(io.BytesIO(documents[0])).num_row_groups < 20
    else:
        assert found.column(0).num_chunks > 10
    remarks = [None if r is None else r.decode() for _, r in text_rows(5000)]
    assert found.column("remark").to_pylist() == remarks


@pytest.mark.parametrize("name", FORMATS)
def test_no_rows_are_a_file_too(things: Dataset, name: str) -> None:
    writer = formats.open_writer(name, things, things.fields)
    document = writer.head() + writer.feed(copy([])) + writer.tail()
    assert table(name, document).num_rows == 0
    assert read(name, things, document)[1:] == ([], [])


@pytest.mark.parametrize("name", FORMATS)
def test_a_stream_that_breaks_off_has_no_end(things: Dataset, name: str) -> None:
    writer = formats.open_writer(name, things, [things.key])
    writer.feed(copy([[b"a"], [b"b"]])[:-2])
    with pytest.raises(formats.FormatError, match="broke off"):
        writer.tail()
    with pytest.raises(formats.FormatError, match="columns that were asked for"):
        other = formats.open_writer(name, things, [things.key])
        other.feed(HEAD + b"\0\5")
        other.tail()


def test_values_that_recur_have_a_dictionary(things: Dataset) -> None:
    fields = [things.by_path[p] for p in ("thing_id", "title", "remark")]
    writer = formats.open_writer("PARQUET", things, fields)
    rows = [[b"k%d" % i, b"t%d" % (i % 5), b"r%d" % i] for i in range(2000)]
    document = writer.head() + writer.feed(copy(rows)) + writer.tail()
    group = pq.ParquetFile(io.BytesIO(document)).metadata.row_group(0)
    coded = ["RLE_DICTIONARY" in group.column(i).encodings for i in range(3)]
    assert coded == [False, True, False]


def test_the_schema_describes_itself(hub_customers: Dataset) -> None:
    schema = columns.arrow_schema(hub_customers, hub_customers.fields)
    assert schema.field("email").metadata == {b"description": b"The main e-mail address."}
    assert schema.metadata[b"penstock:dataset"] == b"customers"


@pytest.fixture(scope="session")
def hub_customers() -> Dataset:
    """The dataset ``customers`` in the hub's own model."""
    from penstockd.catalog.load import load_catalog
    from penstockd.resources import find_descriptors

    return load_catalog(find_descriptors())["customers"]
