"""Invalid files: their errors, and that they have no other effect."""

from __future__ import annotations

import json
import random
import tracemalloc
from typing import Any

import pytest

from chance import SEED
from penstockd import formats
from penstockd.catalog.model import Dataset
from penstockd.formats import BadRow, FormatError
from shelf import read


def one(things: Dataset, name: str, text: str | bytes) -> BadRow:
    """The one bad row of a file whose other rows are valid."""
    data = text.encode() if isinstance(text, str) else text
    _, _, bad = read(name, things, data)
    assert len(bad) == 1, bad
    return bad[0]


CSV_ROWS: list[tuple[bytes, BadRow]] = [
    (b"a,x,y", BadRow(2, "", "has 3 cells, the header 2")),
    (b"a", BadRow(2, "", "has 1 cells, the header 2")),
    (b"a,9223372036854775808", BadRow(2, "large", "is out of range of int64")),
    (b"a,12.5", BadRow(2, "large", "is '12.5', not a whole number")),
    (b'a,""', BadRow(2, "large", "is '', not a whole number")),
    (b"a,1\x002", BadRow(2, "large", "not a whole number")),
    (b"a\x1f,1", BadRow(2, "thing_id", "holds the forbidden character U+001C at position 2")),
    (b"\xff,1", BadRow(2, "thing_id", "is not UTF-8 at byte 1")),
    (b"\xed\xa0\x80,1", BadRow(2, "thing_id", "is not UTF-8 at byte 1")),
    ("a\uffff,1".encode(), BadRow(2, "thing_id", "holds the forbidden character U+FFFF")),
    (b",1", BadRow(2, "thing_id", "is required")),
    (b'"",1', BadRow(2, "thing_id", "must not be empty")),
]


@pytest.mark.parametrize(("line", "expected"), CSV_ROWS)
def test_a_bad_row_of_csv_is_named(things: Dataset, line: bytes, expected: BadRow) -> None:
    bad = one(things, "csv", b"thing_id,large\ngood,1\n" + line + b"\nfine,2\n")
    assert (bad.row, bad.field) == (expected.row, expected.field)
    assert expected.reason in bad.reason


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file is empty"),
        (b"thing_id,nope\n", "unknown column 'nope'"),
        (b"thing_id,title,title\n", "names the column 'title' twice"),
        (b"thing_id,\n", "unknown column ''"),
        (b"title\nx\n", "lacks the key column 'thing_id'"),
        (b"\xff\n", "header is not UTF-8"),
        (b'thing_id\n"a\nb\n', "row 1: the file ends inside a quoted cell"),
        (b'thing_id\na\n"b"c\n', "row 2: has text after a cell's closing quote"),
        (b'thing_id\na"b\n', "row 1: has a quote inside an unquoted cell"),
        (b"thing_id\na\rb\n", "row 1: has a carriage return"),
        (b"thing_id\n" + b"x" * (3 << 20), "row 1: is longer than 1 MiB"),
        (b"title," * 20_000 + b"thing_id\n", "names more than 10000 columns"),
    ],
)
@pytest.mark.parametrize("chunk", [1 << 22, 5])
def test_a_broken_csv_is_refused(things: Dataset, data: bytes, reason: str, chunk: int) -> None:
    if chunk == 5 and len(data) > 200_000:
        pytest.skip("takes long in small pieces")
    with pytest.raises(FormatError, match=reason):
        read("csv", things, data, chunk)


def test_csv_tells_null_from_empty_and_takes_any_layout(things: Dataset) -> None:
    data = (
        b"\xef\xbb\xbftitle,etag,remark,thing_id,small,home_place.line2\r\n"
        b'"","7",,k1,,\r\n\r\n"a ""b"", c\r\nd",,"",k2,-5,x'
    )
    reader, rows, bad = read("csv", things, data, 3)
    assert bad == []
    assert [f.path for f in reader.fields] == [
        "title", "remark", "thing_id", "small", "home_place.line2"
    ]  # fmt: skip
    assert rows == [["", None, "k1", 0, None], ['a "b", c\r\nd', "", "k2", -5, "x"]]


def test_a_present_message_has_its_leaves(things: Dataset) -> None:
    data = b"thing_id,home_place.line1,home_place.line2,home_place.deep_part.code\nk,,,c\nl,,,\n"
    _, rows, _ = read("csv", things, data)
    assert rows == [["k", "", None, "c"], ["l", None, None, None]]
    reader, rows, bad = read("ndjson", things, b'{"thingId":"k","homePlace":{}}\n{"thingId":"l"}')
    place = [f.path for f in reader.fields].index("home_place.line1")
    assert [r[place] for r in rows] == ["", None] and bad == []


JSON_ROWS: list[tuple[Any, str, str]] = [
    ("{", "", "is not JSON"),
    ("[1]", "", "must be an object, not an array"),
    ('{"thingId":"a","thingId":"b"}', "", "has the member 'thingId' twice"),
    ('{"thingId" :"a","thingId":"b"}', "", "has the member 'thingId' twice"),
    ('{"thingId":"a","thing_id":"b"}', "thing_id", "is given twice"),
    ('{"thingId":"a","hidden":1}', "hidden", "is not a field"),
    ('{"thingId":"a","homePlace":{"nope":1}}', "home_place.nope", "is not a field"),
    ('{"thingId":"a","homePlace":3}', "homePlace", "must be an object"),
    ('{"title":"a"}', "thing_id", "is required"),
    ('{"thingId":"a","large":1.5}', "large", "must be a whole number, not 1.5"),
    ('{"thingId":"a","large":9223372036854775808}', "large", "out of range"),
    ('{"thingId":"a","large":' + "9" * 5000 + "}", "", "is not JSON"),
    ('{"thingId":"a","price":NaN}', "", "is not JSON"),
    ('{"thingId":"a","price":1e300}', "price", "out of range"),
    ('{"thingId":"a","price":0.1234567891}', "price", "more than 9 digits"),
    ('{"thingId":"a","title":"\\ud800"}', "", "is not JSON"),
    ('{"thingId":"a","title":"\\u0000"}', "title", "forbidden character U+0000 at position 1"),
    (b'{"thingId":"\xff"}', "", "is not JSON"),
    ('{"thingId":"a","labels":["x",null]}', "labels", "at [1]: must be a string, not null"),
    ('{"thingId":"a","allParts":[{"unitPrice":"x"}]}', "all_parts", "at [0].unitPrice: is 'x'"),
    ('{"thingId":' * 100_000, "", "is not JSON"),
    ('{"thingId":"a","labels":' + "[" * 1015 + "]" * 1015 + "}", "", "nested too deeply"),
]


@pytest.mark.parametrize(("line", "field", "reason"), JSON_ROWS)
def test_a_bad_row_of_ndjson_is_named(
    things: Dataset, line: str | bytes, field: str, reason: str
) -> None:
    data = line if isinstance(line, bytes) else line.encode()
    bad = one(things, "ndjson", b'{"thingId":"1"}\n\n' + data + b'\n{"thingId":"3"}\n')
    assert (bad.row, bad.field) == (2, field)
    assert reason in bad.reason


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "the file ends before"),
        (b'{"thingId":"a"}', "must hold one JSON array"),
        (b'[{"thingId":"a"}', "the file ends before"),
        (b'[{"thingId":"a"', "the file ends before"),
        (b'[{"thingId":"a"}{"thingId":"b"}]', "separated by commas"),
        (b'[{"thingId":"a"},]', "element of the array is missing"),
        (b"[,]", "element of the array is missing"),
        (b"[] []", "something follows"),
        (b"[" * 100_000, "the file ends before"),
        (b'[{"thingId":"' + b"x" * (2 << 20), "longer than 1 MiB"),
    ],
)
def test_a_broken_array_is_refused(things: Dataset, data: bytes, reason: str) -> None:
    with pytest.raises(FormatError, match=reason):
        read("json", things, data, 1 << 17)


@pytest.mark.parametrize("chunk", [1, 7, 100_000])
def test_an_array_may_be_laid_out_freely(things: Dataset, chunk: int) -> None:
    records = [{"thingId": f"k{i}", "title": 'a"]}\\\n,', "labels": ["[", "}"]} for i in range(50)]
    data = ("\ufeff \n" + json.dumps(records, indent=2) + "\r\n ").encode()
    _, rows, bad = read("json", things, data, chunk)
    assert bad == [] and [r[0] for r in rows] == [f"k{i}" for i in range(50)]
    assert read("json", things, b" [ ] ")[1] == []


def test_numbers_are_exact(things: Dataset) -> None:
    line = (
        b'{"thingId":"a","price":12.50,"weight":12.50,'
        b'"large":9007199254740993,"largePositive":18446744073709551615}'
    )
    reader, rows, _ = read("ndjson", things, line)
    found = {f.path: v for f, v in zip(reader.fields, rows[0], strict=True)}
    assert str(found["price"]) == "12.50" and found["weight"] == 12.5
    assert (found["large"], found["large_positive"]) == (2**53 + 1, 2**64 - 1)


@pytest.mark.parametrize("name", ["CSV", "JSON", "NDJSON"])
def test_noise_never_crashes_a_reader(things: Dataset, name: str) -> None:
    print(f"seed {SEED}")
    rng = random.Random(SEED)
    parts = [b'"', b",", b"\n", b"\r", b"{", b"}", b"[", b"]", b":", b"\\", b"\xff", b"\0", b"1",
             b'"thingId"', b"thing_id", b"\xc3\xa9", b"\x1d", b"\x1e", b"\x1f"]  # fmt: skip
    start = {"CSV": b"thing_id,title\n", "JSON": b"[", "NDJSON": b""}[name]
    for _ in range(500):
        data = start + b"".join(rng.choices(parts, k=rng.randrange(60)))
        results: list[Any] = []
        for chunk in (1 << 20, rng.randrange(1, 9)):
            try:
                _, rows, bad = read(name, things, data, chunk)
                results.append((rows, bad))
            except FormatError as error:
                results.append(str(error))
        assert results[0] == results[1], data


def test_memory_is_bounded(things: Dataset) -> None:
    reader = formats.open_reader("csv", things, things.fields)
    line = b'k,"' + b"x" * 1000 + b'"\n'
    count = 0
    tracemalloc.start()
    try:
        for batch in reader.feed(b"thing_id,title\n"):
            count += len(batch.rows)
        for _ in range(300):
            for batch in reader.feed(line * 100):
                count += len(batch.rows)
        for batch in reader.close():
            count += len(batch.rows)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 30_000
    assert peak < 4 << 20
