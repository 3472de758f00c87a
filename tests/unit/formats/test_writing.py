"""Written documents: their form, and the errors if they cannot be written."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from penstockd import formats
from penstockd.catalog.model import Dataset, Field
from penstockd.errors import FormatUnknown
from penstockd.formats import FormatError
from shelf import Shelf, writable

PATHS = ("thing_id", "title", "remark", "home_place.line1", "home_place.line2", "labels", "words")
ROWS: list[list[Any]] = [
    ["k1", "", None, None, None, [], {}],
    ["k2", 'a "b"', "", "x", None, ["<", ""], {"ä&\n": "v"}],
]


def fields(things: Dataset, *paths: str) -> tuple[Field, ...]:
    return tuple(things.by_path[p] for p in paths)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "csv",
            "thing_id,title,remark,home_place.line1,home_place.line2,labels,words\n"
            'k1,"",,,,[],{}\n'
            'k2,"a ""b""","",x,,"[""<"", """"]","{""ä&\\n"": ""v""}"\n',
        ),
        (
            "ndjson",
            '{"thingId":"k1","title":"","remark":null,"homePlace":null,"labels":[],"words":{}}\n'
            '{"thingId":"k2","title":"a \\"b\\"","remark":"","homePlace":{"line1":"x","line2":null}'
            ',"labels":["<", ""],"words":{"ä&\\n": "v"}}\n',
        ),
        (
            "xml",
            '<?xml version="1.0" encoding="UTF-8"?>\n<things>\n'
            "<thing><thing_id>k1</thing_id><title></title><labels></labels><words></words></thing>\n"
            '<thing><thing_id>k2</thing_id><title>a "b"</title><remark></remark><home_place>'
            "<line1>x</line1></home_place><labels><item>&lt;</item><item></item></labels>"
            '<words><entry key="ä&amp;&#10;">v</entry></words></thing>\n</things>\n',
        ),
    ],
)
async def test_null_is_not_empty(shelf: Shelf, things: Dataset, name: str, expected: str) -> None:
    some = fields(things, *PATHS)
    await shelf.fill(ROWS, some)
    for chunk in (1 << 20, 1):
        document, count = await shelf.export(name, some, chunk)
        assert document.decode() == expected
        assert count == 2


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("CSV", b"thing_id\n"),
        ("NDJSON", b""),
        ("JSON", b"[\n]\n"),
        ("XML", b'<?xml version="1.0" encoding="UTF-8"?>\n<things>\n</things>\n'),
    ],
)
async def test_no_rows(shelf: Shelf, things: Dataset, name: str, expected: bytes) -> None:
    assert await shelf.export(name, fields(things, "thing_id")) == (expected, 0)


async def test_rows_of_any_size(shelf: Shelf, things: Dataset) -> None:
    some = fields(things, "thing_id", "title")
    rows = [[f"k{i}", '"\t' * n] for i, n in enumerate([0, 1, 200_000, 3, 2_000_000, 0])]
    await shelf.fill(rows, some)
    document, _ = await shelf.export("JSON", some)
    assert [list(r.values()) for r in json.loads(document)] == rows


async def test_what_cannot_be_printed_is_named(shelf: Shelf, things: Dataset) -> None:
    await shelf.connection.execute(
        "INSERT INTO things (thing_id, day) VALUES ('a', '2000-01-01'), ('b', '10000-01-01')"
    )
    with pytest.raises(FormatError, match="row 2: a value of 'day' cannot be printed"):
        await shelf.export("CSV", fields(things, "thing_id", "day"))


async def test_the_last_day_survives_asyncpg(shelf: Shelf, things: Dataset) -> None:
    some = fields(things, "thing_id", "day")
    rows = [["a", date(9999, 12, 31)], ["b", date(1, 1, 1)]]  # stored as infinity, -infinity
    await shelf.fill(rows, some)
    text = b"thing_id,day\na,9999-12-31\nb,0001-01-01\n"
    assert (await shelf.export("CSV", some))[0] == text


def test_a_stream_that_breaks_off_has_no_tail(things: Dataset) -> None:
    head = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0"
    writer = formats.open_writer("json", things, things.fields)
    assert writer.feed(head) == writer.feed(b"\0") == b""
    with pytest.raises(FormatError, match="broke off"):
        writer.tail()
    with pytest.raises(FormatError, match="binary COPY"):
        formats.open_writer("json", things, things.fields).feed(b"x" * 100)
    with pytest.raises(FormatError, match="not send the columns"):
        formats.open_writer("json", things, things.fields).feed(head + b"\0\1")


def test_masks_are_given_as_expressions(things: Dataset) -> None:
    writer = formats.open_writer("csv", things, things.fields)
    etag = things.by_path["etag"]
    assert writer.sql(etag, '"etag"') == '("etag")::text'
    null: sa.ColumnElement[Any] = sa.null()
    masked = writer.sql(things.by_path["price"], null)
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]
    assert str(masked.compile(dialect=dialect)) == "CAST(NULL AS NUMERIC)"


def test_leaves_of_a_message_stand_together(things: Dataset) -> None:
    apart = fields(things, "home_place.line1", "title", "home_place.line2")
    with pytest.raises(ValueError, match="stand together"):
        formats.open_writer("json", things, apart)
    with pytest.raises(ValueError, match="at least one"):
        formats.open_writer("csv", things, ())


@pytest.mark.parametrize(
    ("format", "accept", "name"),
    [
        ("csv", None, "CSV"),
        ("NdJson", "text/csv", "NDJSON"),
        ("", None, "JSON"),
        ("", "*/*", "JSON"),
        ("", "text/csv; charset=utf-8", "CSV"),
        ("", "text/html, application/xml;q=0.9, */*;q=0.8", "XML"),
        ("", "application/json;q=0.5, application/x-ndjson", "NDJSON"),
        ("", "text/*", "CSV"),
        ("", "application/json;q=0, */*", "NDJSON"),
        ("", "*/*, application/*;q=0", "CSV"),
        ("", "text/csv, text/csv;q=0", "CSV"),
        ("", 'text/csv;note="a, application/xml;q=1";q=0.5, application/xml;q=0.4', "CSV"),
        # A quality that is no number from 0 to 1 spoils its range alone (RFC 9110, 12.4.2).
        ("", "application/xml;q=nan, application/xml;q=2, text/csv;q=0.1", "CSV"),
    ],
)
def test_pick(format: str, accept: str | None, name: str) -> None:
    assert formats.pick_format(format, accept) == name


@pytest.mark.parametrize(
    ("format", "accept"),
    [("YAML", None), ("", "text/html"), ("", "a;q=x"), ("", "*/*;q=0"), ("", "*/*," * 1025)],
)
def test_an_unknown_format_lists_those_there_are(format: str, accept: str | None) -> None:
    with pytest.raises(FormatUnknown, match="JSON, NDJSON, CSV, XML"):
        formats.pick_format(format, accept)


def test_every_field_kind_has_a_plan(things: Dataset) -> None:
    for name in formats.WRITERS:
        assert formats.open_writer(name, things, writable(things)).rows == 0
