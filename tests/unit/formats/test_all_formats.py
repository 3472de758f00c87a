"""Every readable format returns the values that were written; XML is valid by its schema."""

from __future__ import annotations

import csv
import io
import random
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import openpyxl
import pytest
import sqlalchemy as sa
from lxml import etree
from sqlalchemy.dialects import postgresql

from penstockd import formats
from penstockd.catalog.model import Dataset, Field, Kind
from penstockd.errors import FormatUnknown, RequestTooLarge, ValueInvalid
from penstockd.formats import FormatError, ReadOptions, xlsx
from penstockd.formats.xsd import xml_schema
from shelf import Shelf, last_batches, writable

from .test_roundtrip import same, sample

SCRIPTS = [
    "Zoë Ångström-Ñuñez", "Αθηνά Παπαδοπούλου", "Дмитрий Щербаков", "محمد عبد الله", "שָׁלוֹם",
    "王小明", "やまだ 花子", "김민수", "สมชาย", "नरेन्द्र", "ශ්‍රී", "👩‍👩‍👧‍👦🏳️‍🌈",
    "e\u0301 é", "\u202eabc", "𠮷野家",
]  # fmt: skip


async def export(
    shelf: Shelf, name: str, fields: tuple[Field, ...], chunk: int = 1 << 20, **options: Any
) -> bytes:
    """A document of the shelf's rows, with the database's stream cut into chunks."""
    writer = formats.open_writer(name, shelf.dataset, fields, **options)
    stream = bytearray()

    async def take(data: bytes) -> None:
        stream.extend(data)

    columns = ", ".join(writer.sql(f, f'"{f.path}"') for f in writer.selected)
    query = f'SELECT {columns} FROM things ORDER BY "#"'
    # An error of the writer would leave the connection within its COPY.
    await shelf.connection.copy_from_query(query, output=take, **writer.copy_options)
    output = bytearray(writer.head())
    for at in range(0, len(stream), chunk):
        output += writer.feed(bytes(stream[at : at + chunk]))
    return bytes(output + b"".join(writer.ending()))


def read(
    name: str, dataset: Dataset, data: bytes, chunk: int, compression: str = ""
) -> tuple[formats.Reader, list[list[Any]]]:
    """The rows of a document without bad rows."""
    zone = "UTC" if name == "XLSX" else ""  # its times have none
    options = ReadOptions(compression, time_zone=zone)
    reader = formats.open_reader(name, dataset, dataset.fields, options)
    batches: list[formats.RowBatch] = []
    for at in range(0, len(data), chunk):
        batches += reader.feed(data[at : at + chunk])
    batches += last_batches(reader)
    assert [b for batch in batches for b in batch.bad] == []
    return reader, [r for b in batches for r in b.rows]


@pytest.fixture(scope="module")
def rows(things: Dataset) -> list[list[Any]]:
    """Rows that hold every kind of value, and names in many scripts."""
    found = sample(things, 60)
    fields = writable(things)
    places = [i for i, f in enumerate(fields) if f.path in ("title", "remark", "thing_id")]
    for text in SCRIPTS:
        row = list(found[0])
        for place in places:
            row[place] = text
        found.append(row)
    return found


@pytest.mark.parametrize("compression", ["", "GZIP", "ZSTD"])
@pytest.mark.parametrize("name", list(formats.READERS))
async def test_what_is_written_can_be_read(
    shelf: Shelf, things: Dataset, rows: list[list[Any]], name: str, compression: str
) -> None:
    fields = writable(things)
    await shelf.fill(rows, fields)
    document = await export(shelf, name, fields, 1 << 12, compression=compression)
    assert document == await export(shelf, name, fields, 777, compression=compression)
    for chunk, said in ((1 << 20, ""), (1, compression), (1000, compression)):
        reader, found = read(name, things, document, chunk, said)
        assert reader.rows == len(rows) == len(found)
        order = [reader.fields.index(f) for f in fields]
        for expected, got in zip(rows, found, strict=True):
            for field, before, place in zip(fields, expected, order, strict=True):
                alike = {"PARQUET": same_number, "ARROW": same_number, "XLSX": same_cell}.get(
                    name, same
                )
                assert alike(field, before, got[place]), (field.path, before, got[place])


def same_number(field: Field, before: Any, after: Any) -> bool:
    """As ``same``, but the trailing zeros of decimals may differ: columns have a fixed scale."""
    if field.kind is Kind.DECIMAL and before is not None:
        return isinstance(after, Decimal) and before == after
    return same(field, before, after)


def same_cell(field: Field, before: Any, after: Any) -> bool:
    """As ``same_number``, but times are rounded: their number of days has 53 bits.

    Until 2079 that is enough for microseconds; those close to a millisecond count as that.
    """
    if field.kind is Kind.TIMESTAMP and before is not None:
        close = min(before.microsecond % 1000, -before.microsecond % 1000) <= 5
        most = 5 if close else 0 if 1900 < before.year < 2079 else 50
        return isinstance(after, datetime) and abs(after - before) <= timedelta(microseconds=most)
    return same_number(field, before, after)


async def test_a_changed_value_is_noticed(
    shelf: Shelf, things: Dataset, rows: list[list[Any]]
) -> None:
    """Negative control: the comparison above can fail."""
    fields = writable(things)
    await shelf.fill(rows, fields)
    _, found = read("XML", things, await export(shelf, "XML", fields), 1 << 20)
    place = next(i for i, f in enumerate(fields) if f.path == "price")
    row = next(r for r in found if r[place] is not None)
    assert not same(fields[place], row[place], Decimal(str(row[place]) + "0"))


def test_unknown_formats_and_compressions_are_refused(things: Dataset) -> None:
    with pytest.raises(FormatUnknown, match="choose one of JSON, NDJSON, CSV, XML"):
        formats.open_writer("pdf", things, things.fields)
    with pytest.raises(ValueInvalid, match="not one of GZIP, ZSTD"):
        formats.open_writer("csv", things, things.fields, compression="rar")
    with pytest.raises(ValueInvalid, match="not one of GZIP, ZSTD"):
        formats.open_reader("csv", things, things.fields, ReadOptions("br"))
    with pytest.raises(ValueInvalid, match="spreadsheet_safe is for CSV and XLSX"):
        formats.open_writer("json", things, things.fields, spreadsheet_safe=True)


def test_files_are_named_for_what_they_are(things: Dataset) -> None:
    names = {
        formats.open_writer(n, things, things.fields, compression=c).file_name
        for n in ("CSV", "NDJSON", "XLSX") for c in ("", "gzip", "zstd")
    }  # fmt: skip
    assert {"things.csv", "things.csv.gz", "things.ndjson.zst", "things.xlsx"} < names


# --- the schema of XML ---------------------------------------------------------------------


async def test_exports_fit_the_schema(shelf: Shelf, things: Dataset, rows: list[list[Any]]) -> None:
    fields = writable(things)
    await shelf.fill(rows, fields)
    schema = etree.XMLSchema(etree.fromstring(xml_schema(things, things.fields)))
    document = etree.fromstring(await export(shelf, "XML", fields))
    schema.assertValid(document)
    some = tuple(things.by_path[p] for p in ("title", "home_place.line2", "words", "thing_id"))
    schema.assertValid(etree.fromstring(await export(shelf, "XML", some)))


@pytest.mark.parametrize(
    "record",
    [
        "<unknown>1</unknown>", "<small>1.5</small>", "<small>2147483648</small>",
        "<color>BLUE</color>", "<flag>yes</flag>", "<day>2024-02-30</day>", "<price>1e5</price>",
        "<price>0.1234567891</price>", "<seen_at>2024-01-01T00:00:00Z</seen_at>",
        "<labels><label>a</label></labels>", "<words><entry>a</entry></words>",
        "<title>a</title><title>b</title>", "<raw_data>AA</raw_data>", "<ratio>INF</ratio>",
        "<all_parts><item><color>BLUE</color></item></all_parts>",
        "<large_positive>-1</large_positive>",
    ],
)  # fmt: skip
def test_what_does_not_fit_the_schema_is_found(things: Dataset, record: str) -> None:
    schema = etree.XMLSchema(etree.fromstring(xml_schema(things, things.fields)))
    wrap = "<things><thing><thing_id>a</thing_id>{}</thing></things>"
    assert schema.validate(etree.fromstring(wrap.format("")))
    assert not schema.validate(etree.fromstring(wrap.format(record)))


def test_a_schema_shows_the_given_fields_only(things: Dataset) -> None:
    some = [f for f in things.fields if f.path != "price"]
    assert b'"price"' in xml_schema(things, things.fields)
    assert b'"price"' not in xml_schema(things, some)


# --- spreadsheets --------------------------------------------------------------------------

WIDE = ["\uff1d", "\uff0b", "\uff0d", "\uff20", "\ufe66", "\u2212"]
STARTS = ["=", "+", "-", "@", "\t", "\r", "\n", *WIDE]
BEFORE = ["", " ", "   ", "\u00a0", "\u3000", "\ufeff", '"', "'", '" ', "\u200b", "“", " \t"]
BODIES = ["1+1", "cmd|' /C calc'!A0", 'HYPERLINK("http://x","y")', "SUM(A1:A9)", "2", "x;=1", ""]


def active(cell: str) -> bool:
    """Whether a spreadsheet may run a cell; on purpose decided in another way than in the
    kernel."""
    if cell[:1] in ("\t", "\r", "\n"):
        return True
    rest = cell.lstrip(" \t\r\n\u00a0\u3000\ufeff\u200b\"'“")
    if cell.lstrip(" \t\r\n\u00a0\u3000\ufeff\u200b").startswith("'"):
        return False  # an apostrophe at the start makes it text
    return rest[:1] in ("=", "+", "-", "@", *WIDE)


def hostile(count: int) -> list[str]:
    seed = 20240229
    print("seed", seed)
    chance = random.Random(seed)
    cells = [b + s + x for b in BEFORE for s in STARTS for x in BODIES]
    while len(cells) < count:
        text = chance.choice(BEFORE) + chance.choice(STARTS) + chance.choice(BODIES)
        cells.append(text + chance.choice(["", ",", "\n", '"', ";", "\r\n"]) + chance.choice(cells))
    return cells[:count]


async def test_safe_csv_has_no_active_cell(shelf: Shelf, things: Dataset) -> None:
    some = tuple(things.by_path[p] for p in ("thing_id", "title", "price", "labels"))
    cells = hostile(10_000)
    rows = [[f"k{i}", c, Decimal("-12.50"), [c]] for i, c in enumerate(cells)]
    await shelf.fill(rows, some)
    safe = (await export(shelf, "CSV", some, spreadsheet_safe=True)).decode()
    table = list(csv.reader(io.StringIO(safe, newline="")))[1:]
    assert len(table) == 10_000
    assert [r for r in table if active(r[1]) or active(r[3])] == []
    assert {r[2] for r in table} == {"-12.50"}
    # A spreadsheet that takes ';' or a tab as the separator finds none either.
    for separator in (";", "\t"):
        for line in safe.splitlines()[1:]:
            for cell in line.split(separator)[1:]:
                assert not active(cell.lstrip('" \t')), line
    raw = await export(shelf, "CSV", some)
    assert sum(active(r[1]) for r in csv.reader(io.StringIO(raw.decode(), newline=""))) > 3000
    _, found = read("CSV", things, raw, 1 << 20)
    assert [[r[0], r[1], r[3]] for r in found] == [[r[0], r[1], r[3]] for r in rows]
    document = await export(shelf, "XML", some)
    titles = [e.findtext("title") for e in etree.fromstring(document)]
    assert titles == cells


async def test_harmless_text_stays_as_it_is_in_safe_csv(shelf: Shelf, things: Dataset) -> None:
    some = tuple(things.by_path[p] for p in ("thing_id", "title", "ratio", "raw_data"))
    titles = ["", "a", "a=b", "1-2", "a;b", 'say "hi"', "a\nb", "日本\uff1d", "x" * 100]
    await shelf.fill([[f"k{i}", t, -1.5, b""] for i, t in enumerate(titles)], some)
    raw, safe = (
        await export(shelf, "CSV", some),
        await export(shelf, "CSV", some, spreadsheet_safe=True),
    )
    texts = raw.decode(), safe.decode("utf-8-sig")  # spreadsheets look for the byte order mark
    tables = [list(csv.reader(io.StringIO(text, newline=""))) for text in texts]
    assert tables[0] == tables[1]


async def test_xlsx_holds_the_values(shelf: Shelf, things: Dataset) -> None:
    paths = ("thing_id", "title", "flag", "small", "large", "price", "ratio", "day", "seen_at",
             "raw_data", "labels")  # fmt: skip
    some = tuple(things.by_path[p] for p in paths)
    moment = datetime(2024, 2, 29, 23, 59, 59, 999999, UTC)
    rows: list[list[Any]] = [
        ["=1+1", "_x0041_ <&>\t\n", True, -5, 2**62, Decimal("12.50"), 0.5, date(2024, 2, 29),
         moment, b"\xff", ["=x"]],
        ["+b", "", False, 0, None, Decimal("123456789012345.5"), float("-inf"), date(1900, 2, 28),
         datetime(1900, 1, 1, tzinfo=UTC), None, []],
    ]  # fmt: skip
    await shelf.fill(rows, some)
    document = await export(shelf, "XLSX", some, 100)
    assert document == await export(shelf, "XLSX", some)
    sheet = openpyxl.load_workbook(io.BytesIO(document)).active
    assert sheet is not None and sheet.title == "Things"
    names, first, second = sheet.iter_rows()
    assert [c.value for c in names] == list(paths)
    assert {c.data_type for row in (first, second) for c in row} <= {
        "s",
        "n",
        "b",
        "d",
        "inlineStr",
    }
    values = [c.value for c in first]
    assert values[2:8] == [True, -5, str(2**62), 12.5, 0.5, datetime(2024, 2, 29)]
    assert abs((values[8] - moment.replace(tzinfo=None)).total_seconds()) < 0.001
    assert values[9:] == ["/w==", '["=x"]']
    assert [c.value for c in second][4:9] == [
        None, "123456789012345.5", "-Infinity", "1900-02-28", "1900-01-01T00:00:00.000000Z"
    ]  # fmt: skip


async def test_xlsx_counts_the_cells_that_do_not_hold_their_values(
    shelf: Shelf, things: Dataset
) -> None:
    fields = tuple(
        things.by_path[p]
        for p in ("thing_id", "large", "weight", "day", "seen_at", "price", "title")
    )
    exact = datetime(2024, 2, 29, 12, 30, 1, 7000, UTC)
    good: list[Any] = [1, 1.5, date(1900, 3, 1), exact, Decimal("1.5"), "t"]
    rows = [["a", *good], ["b", None, 0.0, None, exact, None, ""]]
    losses: dict[str, list[Any]] = {
        "large": [10**15, -(10**15)],
        "weight": [float("nan"), float("inf"), float("-inf")],
        "day": [date(1900, 2, 28)],
        "seen_at": [exact.replace(microsecond=7001), datetime(1899, 1, 1, tzinfo=UTC)],
        "price": [Decimal("123456789012345.6"), Decimal("0.1234567890123456")],
    }
    places = [f.path for f in fields]
    for path, values in losses.items():
        for value in values:
            row = [f"k{len(rows)}", *good]
            row[places.index(path)] = value
            rows.append(row)
    await shelf.fill(rows, fields)
    writer = formats.open_writer("XLSX", things, fields)
    packed = formats.open_writer("XLSX", things, fields, compression="gzip")
    for each in (writer, packed):
        await write_all(shelf, each, fields)
        assert each.lossy_cells == {path: len(values) for path, values in losses.items()}
    plain = formats.open_writer("CSV", things, fields)  # the control: CSV holds all of it
    await write_all(shelf, plain, fields)
    assert plain.lossy_cells == {}


async def write_all(
    shelf: Shelf, writer: formats.DocumentWriter, fields: tuple[Field, ...]
) -> None:
    """Write the table."""
    writer.head()

    async def take(data: bytes) -> None:
        writer.feed(data)

    columns = ", ".join(writer.sql(f, f'"{f.path}"') for f in fields)
    query = f'SELECT {columns} FROM things ORDER BY "#"'
    await shelf.connection.copy_from_query(query, output=take, format="binary")
    for _ in writer.ending():
        pass


async def test_xlsx_says_when_it_is_too_small(
    shelf: Shelf, things: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = tuple(things.by_path[p] for p in ("thing_id", "title"))
    await shelf.fill([["a", "x"], ["b", "😀" * 16_384]], some)
    with pytest.raises(RequestTooLarge, match=r"row 2: .*'title'.* 32767 characters"):
        await export(shelf, "XLSX", some)
    await shelf.fill([["a", "x" * 32_767], ["b", "é" * 32_767]], some)
    assert await export(shelf, "XLSX", some)
    monkeypatch.setattr(xlsx, "ROW_LIMIT", 1)
    with pytest.raises(RequestTooLarge, match="at most 1 rows"):
        await export(shelf, "XLSX", some)


@pytest.mark.parametrize("path", ["title", "raw_data", "labels"])
async def test_sql_finds_exactly_what_a_cell_cannot_hold(
    shelf: Shelf, things: Dataset, path: str
) -> None:
    """For each kind without a bound, the check before an export agrees with the kernel."""
    field, made = things.by_path[path], range(32_764, 32_771)
    values: dict[str, list[Any]] = {
        "title": [t * (n // u) for n in made for t, u in (("x", 1), ("é", 1), ("😀", 2))],
        "raw_data": [bytes(n) for n in range(24_570, 24_576)],
        "labels": [["x" * (n - 4)] for n in made],
    }
    some = (things.by_path["thing_id"], field)
    writer = xlsx.XlsxWriter(things, some)
    told = writer.too_long(field, writer.sql(field, sa.column(path)))
    assert told is not None
    dialect: Any = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy leaves it bare
    condition = told.compile(dialect=dialect, compile_kwargs={"literal_binds": True})
    verdicts = set()
    for value in values[path]:
        await shelf.fill([["a", value]], some)
        by_sql = await shelf.connection.fetchval(f"SELECT {condition} FROM things")
        try:
            await export(shelf, "XLSX", some)
        except RequestTooLarge:
            assert by_sql, value[:3]
        else:
            assert not by_sql, value[:3]
        verdicts.add(by_sql)
    assert verdicts == {True, False}


# --- receipts ------------------------------------------------------------------------------


@pytest.mark.parametrize("compression", ["", "GZIP", "ZSTD"])
@pytest.mark.parametrize("name", ["NDJSON", "XML"])
async def test_a_receipt_stands_behind_the_rows(
    shelf: Shelf, things: Dataset, name: str, compression: str
) -> None:
    some = (things.by_path["thing_id"],)
    await shelf.fill([["a"], ["b"]], some)
    document = await export(shelf, name, some, compression=compression)
    writer = formats.open_writer(name, things, some, compression=compression)
    good = writer.receipt(b'{"state":"COMPLETE","rowCount":"2","note":"--->"}')
    assert len(read(name, things, document + good, 7)[1]) == 2
    for bad in (b'{"state":"FAILED","rowCount":"2"}', b'{"state":"COMPLETE","rowCount":"3"}'):
        with pytest.raises(FormatError, match="receipt") as caught:
            read(name, things, document + writer.receipt(bad), 7)
        assert caught.value.truncated
    with pytest.raises(FormatError, match="not a receipt") as caught:
        read(name, things, document + writer.receipt(b"[]"), 7)
    assert not caught.value.truncated
    with pytest.raises(FormatError, match="follows"):
        read(name, things, document + good + good, 7)
