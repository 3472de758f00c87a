"""Files from other tools: spellings, names, encodings and columns that are acceptable."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstockd.catalog.model import Dataset
from penstockd.formats import BadRow, FormatError
from shelf import read

PLAIN = (
    "thing_id,flag,seen_at,home_place.line1\n"
    "a,true,2006-02-15T05:03:42.500000Z,x\n"
    "b,false,2006-02-15T05:03:42Z,Zoë 😀\n"
)
#: The same rows as PLAIN.
SPELLED = {
    "PostgreSQL": (
        "thing_id,flag,seen_at,home_place.line1\n"
        "a,t,2006-02-15 05:03:42.5+00,x\nb,f,2006-02-15 07:03:42+02,Zoë 😀\n"
    ),
    "polars": (
        "thing_id,flag,seen_at,home_place.line1\n"
        "a,true,2006-02-15T05:03:42.500000+0000,x\nb,false,2006-02-15T10:33:42.000000+0530,Zoë 😀\n"
    ),
    "pandas with its index": (
        ",thing_id,flag,seen_at,home_place.line1\n"
        "0,a,True,2006-02-15 05:03:42.500000+00:00,x\n"
        "1,b,False,2006-02-15 05:03:42+00:00,Zoë 😀\n"
    ),
    "names as in JSON": PLAIN.replace(
        "thing_id,flag,seen_at,home_place.line1", "thingId,flag,seenAt,homePlace.line1"
    ),
}
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le-bom", "utf-16-be-bom")


def encoded(text: str, encoding: str) -> bytes:
    """The text with the byte order mark of its encoding, if it has one."""
    if encoding.endswith("-bom"):
        return ("\ufeff" + text).encode(encoding.removesuffix("-bom"))
    return text.encode(encoding)


SEEN = datetime(2006, 2, 15, 5, 3, 42, tzinfo=UTC)


def columnar(name: str, values: dict[str, Any]) -> bytes:
    """A file of some columns."""
    table, output = pa.table(values), io.BytesIO()
    if name == "PARQUET":
        pq.write_table(table, output)
    else:
        with pa.ipc.new_stream(output, table.schema) as stream:
            stream.write_table(table)
    return output.getvalue()


def rows_of(
    things: Dataset, name: str, data: bytes, chunk: int = 1 << 20
) -> tuple[list[str], list[list[object]], list[BadRow]]:
    """Columns, rows and bad rows."""
    reader, rows, bad = read(name, things, data, chunk)
    return [f.path for f in reader.fields], rows, bad


@pytest.mark.parametrize("tool", SPELLED)
@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
def test_a_spelling_of_another_tool_is_the_same_value(
    things: Dataset, tool: str, chunk: int
) -> None:
    plain = rows_of(things, "CSV", PLAIN.encode())
    assert len(plain[1]) == 2 and not plain[2]
    assert rows_of(things, "CSV", SPELLED[tool].encode(), chunk) == plain


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
def test_text_may_be_utf_16(things: Dataset, encoding: str, chunk: int) -> None:
    plain = rows_of(things, "CSV", PLAIN.encode())
    assert rows_of(things, "CSV", encoded(PLAIN, encoding), chunk) == plain
    lines = '{"thingId": "a", "title": "Zoë 😀"}\n{"thingId": "b"}\n'
    first = rows_of(things, "NDJSON", lines.encode())
    assert rows_of(things, "NDJSON", encoded(lines, encoding), chunk) == first


@pytest.mark.parametrize(
    "data",
    [
        encoded(PLAIN, "utf-16")[:-1],
        encoded(PLAIN, "utf-16") + b"\x00\xd8",
        encoded("thing_id\n", "utf-16") + b"\x00\xdca\x00",
    ],
)
def test_broken_utf_16_is_refused(things: Dataset, data: bytes) -> None:
    with pytest.raises(FormatError, match="UTF-16"):
        rows_of(things, "CSV", data)


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ("thing_id,,title", "unknown column ''"),
        ("", "unknown column ''"),
        (",", "unknown column ''"),
        (",title", "lacks the key column"),
        ("thing_id,thingId", "the column 'thing_id' twice"),
        ("THING_ID", "unknown column 'THING_ID'"),
    ],
)
def test_what_is_no_header_is_still_none(things: Dataset, header: str, reason: str) -> None:
    with pytest.raises(FormatError, match=reason):
        rows_of(things, "CSV", f"{header}\nx\n".encode())


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("flag", "tr"),
        ("flag", "1"),
        ("flag", "yes"),
        ("seen_at", "2006-02-15 05:03:42+0"),
        ("seen_at", "2006-02-15 05:03:42+000"),
        ("seen_at", "2006-02-15 05:03:42+24"),
        ("seen_at", "2006-02-15 05:03:42"),
    ],
)
def test_what_is_no_value_is_still_refused(things: Dataset, field: str, text: str) -> None:
    _, rows, bad = rows_of(things, "CSV", f"thing_id,{field}\na,{text}\n".encode())
    assert rows == [] and [b.field for b in bad] == [field]


@pytest.mark.parametrize("name", ["PARQUET", "ARROW"])
def test_columns_are_found_by_their_names_as_in_json(things: Dataset, name: str) -> None:
    values = {"thing_id": ["a", "b"], "seen_at": [SEEN, None], "home_place.line1": ["x", "y"]}
    named = {"thingId": values["thing_id"], "seenAt": values["seen_at"]}
    named |= {"homePlace.line1": values["home_place.line1"]}
    plain = rows_of(things, name, columnar(name, values))
    assert plain[1][0] != plain[1][1] and not plain[2]
    assert rows_of(things, name, columnar(name, named)) == plain
    # pandas writes an index that is not a range as an additional column.
    assert rows_of(things, name, columnar(name, values | {"__index_level_0__": [7, 9]})) == plain
    with pytest.raises(FormatError, match="unknown column '__index_level_1__'"):
        rows_of(things, name, columnar(name, values | {"__index_level_1__": [7, 9]}))


@pytest.mark.parametrize("name", ["PARQUET", "ARROW"])
def test_keys_may_be_whole_numbers_and_decimals_floats(things: Dataset, name: str) -> None:
    prices = ["12.34", "0.1", "-5", "100000000000", None]
    numbers = pa.array([None if p is None else float(p) for p in prices])
    found = [1, 2, 3, 4, 5]
    text = {"thing_id": [str(n) for n in found], "price": prices}
    plain = rows_of(things, name, columnar(name, text))
    assert len(plain[1]) == 5 and not plain[2]
    values = {"thing_id": found, "price": numbers}
    assert rows_of(things, name, columnar(name, values)) == plain
    single = values | {"thing_id": pa.array(found, pa.uint8()), "price": numbers.cast(pa.float32())}
    assert rows_of(things, name, columnar(name, single)) == plain
    # Other text is not a number: a postal code of 01234 has lost its first digit.
    with pytest.raises(FormatError, match="does not fit string"):
        rows_of(things, name, columnar(name, {"thing_id": found, "title": found}))
    _, _, bad = rows_of(things, name, columnar(name, {"thing_id": [1], "price": [0.1 + 0.2]}))
    assert [b.field for b in bad] == ["price"]
