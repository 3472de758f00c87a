"""The options that describe a file (delimiter, time zone, unknown names), and flat names in
JSON."""

from __future__ import annotations

import io
import json
from datetime import UTC, datetime
from typing import Any

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstockd import formats
from penstockd.catalog.model import Dataset
from penstockd.errors import ValueInvalid
from penstockd.formats import FormatError, ReadOptions
from penstockd.formats.options import DELIMITERS
from shelf import read

CHUNKS = [1, 7, 1 << 20]
#: Cells that hold every delimiter, a quote and a line end, as RFC 4180 quotes them.
TABLE = [
    ["thing_id", "title", "remark"],
    ["a", "one, two; three\tfour|five", ""],
    ["b", 'a "quoted" word', "first\nsecond"],
    ["c", "", "z"],
]


def write_csv(delimiter: str) -> bytes:
    """TABLE with all cells quoted but those of the header and plain ones."""

    def cell(text: str) -> str:
        plain = text.replace("_", "").isalnum()
        return text if plain else '"' + text.replace('"', '""') + '"'

    return "".join(delimiter.join(map(cell, row)) + "\r\n" for row in TABLE).encode()


def values(
    things: Dataset, name: str, data: bytes, options: ReadOptions, chunk: int = 1 << 20
) -> tuple[list[str], list[list[Any]], list[formats.BadRow]]:
    reader, rows, bad = read(name, things, data, chunk, options)
    return [f.path for f in reader.fields], rows, bad


# --- delimiters ---


@pytest.mark.parametrize("chunk", CHUNKS)
@pytest.mark.parametrize("said", DELIMITERS)
def test_every_delimiter_gives_the_same_rows(things: Dataset, said: str, chunk: int) -> None:
    plain = values(things, "CSV", write_csv(","), ReadOptions())
    assert len(plain[1]) == 3 and not plain[2]
    data = write_csv(DELIMITERS[said])
    for option in (said, said.upper(), DELIMITERS[said]):
        assert values(things, "CSV", data, ReadOptions(delimiter=option), chunk) == plain
    if said != "pipe":
        assert values(things, "CSV", data, ReadOptions(), chunk) == plain


@pytest.mark.parametrize(
    ("header", "columns"),
    [
        ("thing_id;title", 2),
        ("thing_id\ttitle", 2),
        ('"thing_id";"title,;,,"', "title,;,,"),  # what stands in quotes does not count
        ("thing_id;title;large,rate", "large,rate"),  # most often
        ("thing_id,title;large", "title;large"),  # of equals the first
        ("thing_id;title\tlarge", "title\tlarge"),
        ("thing_id", 1),
    ],
)
@pytest.mark.parametrize("chunk", CHUNKS)
def test_the_header_decides(things: Dataset, header: str, columns: int | str, chunk: int) -> None:
    data = f"{header}\n".encode()
    if isinstance(columns, str):
        with pytest.raises(FormatError, match="unknown column") as refused:
            values(things, "CSV", data, ReadOptions(), chunk)
        assert f"'{columns}'" in str(refused.value)
    else:
        assert len(values(things, "CSV", data, ReadOptions(), chunk)[0]) == columns


def test_what_is_said_counts_more_than_the_header(things: Dataset) -> None:
    with pytest.raises(FormatError, match="unknown column 'thing_id;title'"):
        values(things, "CSV", b"thing_id;title\n", ReadOptions(delimiter=","))


@pytest.mark.parametrize("said", [";;", "x", '"', "\n", "colon", "\0", "é"])
def test_other_delimiters_are_refused(things: Dataset, said: str) -> None:
    with pytest.raises(ValueInvalid, match=r"^delimiter is one of comma, semicolon, tab, pipe"):
        values(things, "CSV", b"", ReadOptions(delimiter=said))


@pytest.mark.parametrize("name", sorted(set(formats.READERS) - {"CSV"}))
def test_only_csv_has_a_delimiter(things: Dataset, name: str) -> None:
    with pytest.raises(ValueInvalid, match="delimiter is for CSV alone"):
        values(things, name, b"", ReadOptions(delimiter=","))


# --- files of one record in each format ---


def write(name: str, row: dict[str, Any]) -> bytes:
    """A file of one record; a dict is a message, and a list one of messages."""
    if name in ("JSON", "NDJSON"):
        text = json.dumps(row, default=str)
        return (f"[{text}]" if name == "JSON" else text).encode()
    if name == "XML":
        return f"<things><thing>{''.join(map(element, row.items()))}</thing></things>".encode()
    flat: dict[str, Any] = {}
    for key, value in row.items():
        if isinstance(value, dict):
            flat |= {f"{key}.{k}": v for k, v in value.items()}
        else:
            flat[key] = value
    if name == "CSV":
        cells = [
            json.dumps(v, default=str) if isinstance(v, list) else str(v) for v in flat.values()
        ]
        line = ",".join('"' + c.replace('"', '""') + '"' for c in cells)
        return f"{','.join(flat)}\n{line}\n".encode()
    if name == "XLSX":
        cells = [json.dumps(v, default=str) if isinstance(v, list) else v for v in flat.values()]
        return write_sheet([list(flat), cells])
    table, output = pa.Table.from_pylist([flat]), io.BytesIO()
    if name == "PARQUET":
        pq.write_table(table, output)
    else:
        with pa.ipc.new_stream(output, table.schema) as stream:
            stream.write_table(table)
    return output.getvalue()


def write_sheet(rows: list[list[Any]]) -> bytes:
    """A workbook of one sheet. Times with a zone are text: a cell has none."""
    book, output = openpyxl.Workbook(), io.BytesIO()
    for row in rows:
        aware = [isinstance(v, datetime) and v.tzinfo is not None for v in row]
        book.active.append([str(v) if a else v for v, a in zip(row, aware, strict=True)])
    book.save(output)
    return output.getvalue()


def element(member: tuple[str, Any]) -> str:
    name, value = member
    if isinstance(value, dict):
        value = "".join(map(element, value.items()))
    elif isinstance(value, list):
        value = "".join(element(("item", v)) for v in value)
    return f"<{name}>{value}</{name}>"


every_format = pytest.mark.parametrize("name", list(formats.READERS))


def test_every_format_is_written_here(things: Dataset) -> None:
    for name in formats.READERS:
        fields, rows, bad = values(things, name, write(name, {"thing_id": "a"}), ReadOptions())
        assert (rows[0][fields.index("thing_id")], bad) == ("a", [])


# --- time zones ---

WINTER, SUMMER = datetime(2024, 1, 15, 12, 30), datetime(2024, 7, 15, 12, 30, 0, 250_000)


@every_format
@pytest.mark.parametrize(
    ("zone", "moment", "utc"),
    [
        ("Europe/Berlin", WINTER, datetime(2024, 1, 15, 11, 30, tzinfo=UTC)),
        ("Europe/Berlin", SUMMER, datetime(2024, 7, 15, 10, 30, 0, 250_000, tzinfo=UTC)),
        ("Asia/Kathmandu", WINTER, datetime(2024, 1, 15, 6, 45, tzinfo=UTC)),
        ("+02:00", SUMMER, datetime(2024, 7, 15, 10, 30, 0, 250_000, tzinfo=UTC)),
        ("-0930", WINTER, datetime(2024, 1, 15, 22, 0, tzinfo=UTC)),
        ("UTC", WINTER, WINTER.replace(tzinfo=UTC)),
        ("Z", WINTER, WINTER.replace(tzinfo=UTC)),
    ],
)
def test_times_without_a_zone_take_the_zone_that_is_said(
    things: Dataset, name: str, zone: str, moment: datetime, utc: datetime
) -> None:
    data = write(name, {"thing_id": "a", "seen_at": moment})
    fields, rows, bad = values(things, name, data, ReadOptions(time_zone=zone))
    assert bad == []
    assert rows[0][fields.index("seen_at")] == utc
    # A zone in the file takes precedence.
    own = write(name, {"thing_id": "a", "seen_at": utc})
    fields, rows, _ = values(things, name, own, ReadOptions(time_zone=zone))
    assert rows[0][fields.index("seen_at")] == utc


@every_format
def test_times_without_a_zone_are_refused_if_none_is_said(things: Dataset, name: str) -> None:
    data = write(name, {"thing_id": "a", "seen_at": WINTER})
    if name in ("PARQUET", "ARROW"):
        with pytest.raises(FormatError, match="does not fit timestamp"):
            values(things, name, data, ReadOptions())
    else:
        _, rows, bad = values(things, name, data, ReadOptions())
        assert rows == [] and [b.field for b in bad] == ["seen_at"]


@every_format
@pytest.mark.parametrize(
    ("moment", "reason"),
    [
        (datetime(2024, 3, 31, 2, 30), "which the clocks of Europe/Berlin skip"),
        (datetime(2024, 10, 27, 2, 30), "which exists twice in Europe/Berlin: write its offset"),
    ],
)
def test_times_at_a_change_of_the_clock_are_bad_rows(
    things: Dataset, name: str, moment: datetime, reason: str
) -> None:
    data = write(name, {"thing_id": "a", "seen_at": moment})
    _, rows, bad = values(things, name, data, ReadOptions(time_zone="Europe/Berlin"))
    assert rows == []
    assert [(b.row, b.field) for b in bad] == [(1, "seen_at")] and reason in bad[0].reason


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2024-01-15", datetime(2024, 1, 14, 23, tzinfo=UTC)),
        ("2024-01-15 12:30", datetime(2024, 1, 15, 11, 30, tzinfo=UTC)),
        ("2024-01-15t12:30:01", datetime(2024, 1, 15, 11, 30, 1, tzinfo=UTC)),
        ("2024-03-31 01:59:59.999999", datetime(2024, 3, 31, 0, 59, 59, 999_999, tzinfo=UTC)),
        ("2024-03-31 03:00:00", datetime(2024, 3, 31, 1, tzinfo=UTC)),
        ("2024-10-27 01:59:59", datetime(2024, 10, 26, 23, 59, 59, tzinfo=UTC)),
        ("2024-10-27 03:00:00", datetime(2024, 10, 27, 2, tzinfo=UTC)),
        ("2024-01-15 12:30:00.1234567", None),
        ("2024-01-15 12:30:00.1234560", datetime(2024, 1, 15, 11, 30, 0, 123_456, tzinfo=UTC)),
        ("2024-02-30 12:30:00", None),
        ("2024-01-15 24:00:00", None),
        ("2024-01-15 12", None),
        ("15.01.2024 12:30", None),
        ("20240115T123000", None),
        ("0001-01-01 00:00:00", None),
    ],
)
def test_how_times_without_a_zone_may_be_written(
    things: Dataset, text: str, utc: datetime | None
) -> None:
    data = f"thing_id,seen_at\na,{text}\n".encode()
    _, rows, bad = values(things, "CSV", data, ReadOptions(time_zone="Europe/Berlin"))
    assert (rows, len(bad)) == (([["a", utc]], 0) if utc else ([], 1))


@pytest.mark.parametrize(
    "zone",
    ["Mars/Olympus", "Europe", "../../etc/passwd", "/etc/localtime", "localtime", "Factory",
     "+2", "+25:00", "+02:60", "posixrules", "\0", "x" * 5000],
)  # fmt: skip
def test_other_zones_are_refused(things: Dataset, zone: str) -> None:
    with pytest.raises(ValueInvalid, match=r"^time_zone is .* neither a time zone"):
        values(things, "CSV", b"", ReadOptions(time_zone=zone))


# --- unknown names ---


@every_format
def test_unknown_names_are_counted_if_they_are_ignored(things: Dataset, name: str) -> None:
    known = {
        "thing_id": "a",
        "home_place": {"line1": "x"},
        "all_parts": [{"part_name": "y", "amount": 1}],
    }
    unknown = {
        "planet": "Mars",
        **known,
        "home_place": {"line1": "x", "planet": "Mars"},
        "all_parts": [{"part_name": "y", "amount": 1, "planet": "Mars"}],
    }
    plain = values(things, name, write(name, known), ReadOptions())
    data = write(name, unknown)
    try:
        _, rows, bad = values(things, name, data, ReadOptions())
    except FormatError as refused:
        assert "planet" in str(refused)
    else:
        assert rows == [] and len(bad) == 1 and "planet" in bad[0].field + bad[0].reason
    reader, rows, bad = read(name, things, data, 1 << 20, ReadOptions(ignore_unknown=True))
    fields = [f.path for f in reader.fields]
    assert bad == []
    assert (fields, rows) == plain[:2]
    assert reader.leniency.unknown is not None
    assert reader.leniency.unknown.counts == {
        "planet": 1,
        "home_place.planet": 1,
        "all_parts.planet": 1,
    }
    assert reader.leniency.unknown.total == 3


def test_names_are_bounded(things: Dataset) -> None:
    record = {"thingId": "a"} | {f"{i:05}" + "x" * 500: i for i in range(3000)}
    options = ReadOptions(ignore_unknown=True)
    reader, rows, _ = read("NDJSON", things, json.dumps(record).encode(), 1 << 20, options)
    unknown = reader.leniency.unknown
    assert unknown is not None and len(rows) == 1
    assert (unknown.total, len(unknown.counts)) == (3000, 100)
    assert max(map(len, unknown.counts)) == 200


# --- flat names ---


@pytest.mark.parametrize(
    ("flat", "nested"),
    [
        ({"home_place.line1": "x"}, {"homePlace": {"line1": "x"}}),
        ({"homePlace.line1": "x"}, {"homePlace": {"line1": "x"}}),
        ({"homePlace.line1": None}, {}),
        ({"homePlace.line1": "x", "home_place.line1": None}, {"homePlace": {"line1": "x"}}),
    ],
)
def test_json_may_name_members_by_paths(
    things: Dataset, flat: dict[str, Any], nested: dict[str, Any]
) -> None:
    found = values(things, "NDJSON", json.dumps({"thingId": "a", **flat}).encode(), ReadOptions())
    assert found == values(
        things, "NDJSON", json.dumps({"thingId": "a", **nested}).encode(), ReadOptions()
    )
    assert found[2] == []


@pytest.mark.parametrize(
    ("record", "field", "reason"),
    [
        ({"homePlace.line1": "x", "homePlace": {"line1": "x"}}, "homePlace.line1", "given twice"),
        ({"home_place.line1": "x", "homePlace": {}}, "home_place.line1", "given twice"),
        ({"homePlace.line1": "x", "home_place": None}, "homePlace.line1", "given twice"),
        ({"homePlace.line1": "x", "home_place.line1": "x"}, "home_place.line1", "given twice"),
        ({"homePlace.planet": "x"}, "home_place.planet", "is not a field"),
        ({"planet.line1": "x"}, "planet.line1", "is not a field"),
        ({"homePlace.": "x"}, "home_place.", "is not a field"),
        ({".": "x"}, ".", "is not a field"),
    ],
)
def test_what_is_named_twice_or_not_known_is_refused(
    things: Dataset, record: dict[str, Any], field: str, reason: str
) -> None:
    data = json.dumps({"thingId": "a", **record}).encode()
    _, rows, bad = values(things, "NDJSON", data, ReadOptions())
    assert rows == [] and [b.field for b in bad] == [field] and reason in bad[0].reason
