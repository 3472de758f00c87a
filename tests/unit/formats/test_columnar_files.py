"""Parquet and Arrow files from other programs, some of them invalid."""

from __future__ import annotations

import io
import json
import random
import struct
from collections.abc import AsyncGenerator, Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from penstockd.catalog.model import Dataset
from penstockd.errors import RequestTooLarge
from penstockd.formats import BadRow, FormatError, columnar_reader, unpack
from penstockd.formats.columnar_reader import ColumnarReader
from penstockd.native.abi import CELL, NULL_CELL, ROW
from penstockd.row_frames import END, PROBLEM, ROWS, FileUnreadable
from penstockd.spools import Spool
from shelf import last_batches, read

pytestmark = pytest.mark.lane(priority=2)

SEED = 20240229
NULL = bytes([NULL_CELL])
DAY = datetime(2024, 2, 29, 12, 0, 0, 123456, tzinfo=UTC)


def as_parquet(table: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


def as_stream(table: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table)
    return sink.getvalue()


def as_file(table: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table)
    return sink.getvalue()


WRITTEN: dict[str, tuple[str, Callable[..., bytes]]] = {
    "parquet": ("PARQUET", as_parquet),
    "stream": ("ARROW", as_stream),
    "file": ("ARROW", as_file),
}


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read files in this process: the same work, without starting a process each time."""

    async def frames(
        self: columnar_reader.ColumnarReader, spool: Spool
    ) -> AsyncGenerator[tuple[bytes, bytes], None]:
        kinds = {f.path: f.kind.name for f in self.offered if not f.output_only}
        data = pa.py_buffer(spool.read())
        try:
            for frame in unpack.make_frames(data, self.format, kinds):
                yield frame
        except FileUnreadable as refused:
            yield PROBLEM, json.dumps(refused.problem).encode()
        else:
            yield END, b""

    monkeypatch.setattr(columnar_reader.ColumnarReader, "frames", frames)


every_file = pytest.mark.parametrize("how", list(WRITTEN))


def values(things: Dataset, how: str, table: pa.Table) -> list[dict[str, Any]]:
    """The rows of a completely valid file, by path."""
    name, write = WRITTEN[how]
    reader, rows, bad = read(name, things, write(table))
    assert bad == []
    return [dict(zip([f.path for f in reader.fields], row, strict=True)) for row in rows]


def refused(things: Dataset, how: str, table: pa.Table) -> list[BadRow]:
    name, write = WRITTEN[how]
    return read(name, things, write(table))[2]


def column(path: str, *items: Any, type: Any = None) -> pa.Table:
    keys = [f"k{i}" for i in range(len(items))]
    held = items[0] if len(items) == 1 and isinstance(items[0], pa.Array) else pa.array(items, type)
    keys = [f"k{i}" for i in range(len(held))]
    return pa.table({"thing_id": keys, path: held})


@pytest.mark.usefixtures("here")
@every_file
@pytest.mark.parametrize(
    ("path", "held", "wanted"),
    [
        ("title", pa.array(["é", ""], pa.large_string()), ["é", ""]),
        ("title", pa.array(["é", "x" * 50], pa.string_view()), ["é", "x" * 50]),
        ("title", pa.array([b"a", "日".encode()], pa.binary()), ["a", "日"]),
        ("title", pa.array(["a", "b", "a"]).dictionary_encode(), ["a", "b", "a"]),
        ("remark", pa.array(["a", None, "a"]).dictionary_encode(), ["a", None, "a"]),
        ("remark", pa.nulls(2), [None, None]),
        ("remark", pa.array(["\r\n\t", "\x7f", None]), ["\r\n\t", "\x7f", None]),
        ("color", pa.array(["RED", "1"]), ["RED", "RED"]),
        ("color", pa.array([1, 2], pa.int8()), ["RED", "GREEN"]),
        ("flag", pa.array([True, False]), [True, False]),
        ("flag", pa.array(["true", "FALSE"]), [True, False]),
        ("small", pa.array([-5, 7], pa.int64()), [-5, 7]),
        ("large_positive", pa.array([2**64 - 1], pa.uint64()), [2**64 - 1]),
        ("large", pa.array([Decimal("12"), Decimal("-7")], pa.decimal128(5, 0)), [12, -7]),
        ("weight", pa.array([0.1, -0.0, 1e300, float("-inf")]), [0.1, 0.0, 1e300, float("-inf")]),
        ("weight", pa.array([0.5, 3], pa.float16()), [0.5, 3.0]),
        ("ratio", pa.array([1.5, 2.0], pa.float64()), [1.5, 2.0]),
        ("price", pa.array([Decimal("12.5000"), Decimal(0)], pa.decimal128(18, 4)),
         [Decimal("12.5"), Decimal(0)]),
        ("price", pa.array([Decimal("0.000000001"), Decimal("-100")], pa.decimal128(38, 9)),
         [Decimal("0.000000001"), Decimal(-100)]),
        ("price", pa.array([Decimal("7.25")], pa.decimal256(60, 20)), [Decimal("7.25")]),
        ("price", pa.array([12.5, -0.75]), [Decimal("12.5"), Decimal("-0.75")]),
        ("price", pa.array([12, -3]), [Decimal(12), Decimal(-3)]),
        ("price", pa.array(["1.10"]), [Decimal("1.10")]),
        ("day", pa.array([date(2024, 2, 29), date(1, 1, 1)]), [date(2024, 2, 29), date(1, 1, 1)]),
        ("day", pa.array([date(2024, 2, 29)], pa.date64()), [date(2024, 2, 29)]),
        ("seen_at", pa.array([DAY], pa.timestamp("us", "UTC")), [DAY]),
        ("seen_at", pa.array([DAY], pa.timestamp("us", "Asia/Tokyo")), [DAY]),
        ("seen_at", pa.array([DAY.replace(microsecond=0)], pa.timestamp("s", "UTC")),
         [DAY.replace(microsecond=0)]),
        ("seen_at", pa.array([1709208000123456000, -1000], pa.timestamp("ns", "UTC")),
         [DAY, datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)]),
        ("raw_data", pa.array([b"\xff\x00", b""]), [b"\xff\x00", b""]),
        ("raw_data", pa.array(["/wA="]), [b"\xff\x00"]),
        ("labels", pa.array([["a", "ü"], []], pa.list_(pa.string())), [["a", "ü"], []]),
        ("labels", pa.array(['["a"]', "[]"]), [["a"], []]),
        ("numbers", pa.array([[2**62]], pa.list_(pa.int64())), [[str(2**62)]]),
        ("words", pa.array([[("a", "b")]], pa.map_(pa.string(), pa.string())), [{"a": "b"}]),
    ],
)  # fmt: skip
def test_types_that_fit(
    things: Dataset, how: str, path: str, held: pa.Array, wanted: list[Any]
) -> None:
    if how == "parquet" and held.type == pa.float16() and path == "weight":
        held = held.cast(pa.float32())
    found = [row[path] for row in values(things, how, column(path, held))]
    assert found == wanted and list(map(str, found)) == list(map(str, wanted))


@pytest.mark.usefixtures("here")
@every_file
@pytest.mark.parametrize(
    ("path", "held", "reason"),
    [
        ("title", pa.array(["a", "b\0c"]), "U+0000 at position 2"),
        ("title", pa.array(["a", "\x1f"]), "forbidden character"),
        ("title", pa.array(["a", "\ufffe"]), "U+FFFE"),
        ("title", pa.array([b"a", b"x\xff"]), "is not UTF-8 at byte 2"),
        ("title", pa.array([b"a", b"\xed\xa0\x80"]), "is not UTF-8"),
        ("title", pa.array(["a", "\0"]).dictionary_encode(), "U+0000"),
        ("color", pa.array(["RED", "PINK"]), "not one of"),
        ("small", pa.array([1, 2**31]), "out of range of int32"),
        ("small_positive", pa.array([1, -1]), "out of range of uint32"),
        ("price", pa.array([0.5, 0.1 + 0.2]), "more than 9 digits after the point"),
        ("price", pa.array([0.5, 1e30]), "more than 29 digits before the point"),
        ("price", pa.array([0.5, float("nan")]), "not a decimal number"),
        ("price", pa.array([Decimal(1), Decimal("1E-10")], pa.decimal128(38, 10)), "9 digits"),
        ("price", pa.array([Decimal(1), Decimal(10) ** 50], pa.decimal256(60, 0)), "29 digits"),
        ("day", pa.array([0, 2**31 - 1], pa.int32()).view(pa.date32()), "not a date"),
        ("seen_at", pa.array([0, 2**62], pa.timestamp("s", "UTC")), "not a time"),
        ("seen_at", pa.array([0, -(2**62)], pa.timestamp("us", "UTC")), "not a time"),
        ("raw_data", pa.array(["AA==", "?"]), "is not base64"),
        ("labels", pa.array([["a"], [None]], pa.list_(pa.string())), "at [0]"),
        ("labels", pa.array(["[]", "[1"]), "is not JSON"),
    ],
)  # fmt: skip
def test_values_that_do_not_fit_are_named(
    things: Dataset, how: str, path: str, held: pa.Array, reason: str
) -> None:
    if how == "parquet" and (pa.types.is_date(held.type) or held.type == pa.timestamp("s", "UTC")):
        pytest.skip("Parquet cannot hold it")
    (bad,) = refused(things, how, column(path, held))
    assert (bad.row, bad.field) == (2, path) and reason in bad.reason


@every_file
def test_the_first_and_last_rows_of_many_are_named(things: Dataset, how: str) -> None:
    titles = ["x"] * 20_000
    titles[0] = titles[4096] = titles[-1] = "\x0b"
    table = column("title", pa.array(titles))
    assert [b.row for b in refused(things, how, table)] == [1, 4097, 20_000]


@every_file
def test_structs_are_dotted_columns(things: Dataset, how: str) -> None:
    place = pa.array([{"line1": "a", "line2": None}, None, {"line1": "", "line2": "b"}])
    found = values(things, how, column("home_place", place))
    assert [(r["home_place.line1"], r["home_place.line2"]) for r in found] == [
        ("a", None), (None, None), ("", "b"),
    ]  # fmt: skip


@pytest.mark.usefixtures("here")
@every_file
@pytest.mark.parametrize(
    ("table", "reason"),
    [
        (pa.table({"thing_id": ["a"], "secret": ["x"]}), "the unknown column 'secret'"),
        (pa.table({"title": ["x"]}), "lacks the key column 'thing_id'"),
        (pa.table([["a"], ["b"], ["c"]], ["thing_id", "title", "title"]), "'title' twice"),
        (column("price", True), "'price' is of type bool, which does not fit decimal"),
        (column("seen_at", DAY.replace(tzinfo=None)), "'seen_at' is of type timestamp[us], which"),
        (column("small", 1.5), "'small' is of type double, which does not fit int32"),
        (column("title", 7), "'title' is of type int64, which does not fit string"),
        (column("day", DAY), "'day' is of type timestamp[us, tz=UTC]"),
        (column("title", "x" * (1 << 20)), "row 1: is longer than 1 MiB"),
    ],
)
def test_files_that_do_not_fit(things: Dataset, how: str, table: pa.Table, reason: str) -> None:
    name, write = WRITTEN[how]
    with pytest.raises(FormatError) as error:
        read(name, things, write(table))
    assert reason in str(error.value) and not error.value.truncated


@every_file
def test_null_keys_and_empty_ones_are_refused(things: Dataset, how: str) -> None:
    table = pa.table({"thing_id": ["a", None, ""]})
    assert [(b.row, b.field) for b in refused(things, how, table)] == [
        (2, "thing_id"),
        (3, "thing_id"),
    ]


@every_file
def test_a_file_that_was_cut_is_said_to_be(things: Dataset, how: str) -> None:
    name, write = WRITTEN[how]
    body = write(pa.table({"thing_id": [f"k{i}" for i in range(1000)]}))
    for size in (0, 5 if how == "stream" else 8, len(body) // 2, len(body) - 1):
        with pytest.raises(FormatError) as error:
            read(name, things, body[:size])
        # A few bytes do not show what they were meant to be.
        assert error.value.truncated or 0 < size < 9, (size, error.value)


@every_file
@pytest.mark.parametrize("compression", ["zstd", "lz4"])
def test_compressed_files(things: Dataset, how: str, compression: str) -> None:
    name, write = WRITTEN[how]
    table = pa.table({"thing_id": [f"k{i}" for i in range(5000)]})
    rows = read(name, things, write(table, compression=compression))[1]
    assert [r[0] for r in rows] == table["thing_id"].to_pylist()


@pytest.mark.parametrize("body", [b"x", b"PAR1", b"ARROW1", b"\xff" * 100, b"PAR1" * 20, b"a,b\n"])
@pytest.mark.parametrize("name", ["PARQUET", "ARROW"])
def test_no_such_file_at_all(things: Dataset, name: str, body: bytes) -> None:
    with pytest.raises(FormatError):
        read(name, things, body)


def bombs() -> dict[str, tuple[str, bytes]]:
    """Small files that become large when they are read."""
    huge = pa.table({"thing_id": ["a"], "title": ["\n" * (200 << 20)]})
    many = 100_000
    places = pa.repeat(pa.scalar(0, pa.int32()), many)
    coded = pa.DictionaryArray.from_arrays(places, pa.array(["x" * 2000]))
    keys = pa.table({"thing_id": pa.repeat("k", many), "title": coded})
    names = [f"c{i}" for i in range(20_000)]
    return {
        "one long value": ("PARQUET", as_parquet(huge, compression="zstd")),
        "a stream of one": ("ARROW", as_stream(huge, compression="zstd")),
        "a value that recurs": ("PARQUET", as_parquet(keys, compression="zstd")),
        "many columns": ("PARQUET", as_parquet(pa.table([pa.array(["a"])] * len(names), names))),
    }


WATCHED = """
import atexit, runpy, sys
def say():
    with open("/proc/self/status") as status, open({peak!r}, "w") as file:
        file.write(next(line.split()[1] for line in status if line.startswith("VmHWM")))
atexit.register(say)
runpy.run_path({script!r}, run_name="__main__")
"""


def test_bombs_take_bounded_memory(
    things: Dataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script, peak = tmp_path / "watched.py", tmp_path / "peak"
    script.write_text(WATCHED.format(peak=str(peak), script=str(ColumnarReader.script)))
    monkeypatch.setattr(ColumnarReader, "script", script)

    def taken(name: str, body: bytes) -> tuple[str, int]:
        """The error for a file, and the most bytes of memory that reading it took."""
        assert len(body) < 8 << 20
        kind = columnar_reader.ParquetReader if name == "PARQUET" else columnar_reader.ArrowReader
        reader, rows, said = kind(things, things.fields), 0, "fine"
        list(reader.feed(body))
        try:
            rows = sum(len(batch.rows) for batch in last_batches(reader))
        except FormatError as error:
            said = error.reason
        return (said if not rows else f"{rows} rows"), int(peak.read_text()) << 10

    _, idle = taken(*small())
    files = bombs()
    found = {what: taken(*file) for what, file in files.items()}
    for what, (_, most) in found.items():
        assert most - idle < ColumnarReader.memory_limit + (16 << 20), (what, found)
    said = {what: text for what, (text, _) in found.items()}
    assert said.pop("a value that recurs") == "100000 rows"
    assert said.pop("many columns") == "the file has more than 10000 columns"
    assert all("needs more than 128 MiB of memory" in text for text in said.values()), said
    # Negative control: without the limit it takes any amount.
    monkeypatch.setattr(ColumnarReader, "memory_limit", 8 << 30)
    assert taken(*files["one long value"])[1] > idle + (200 << 20)


def small() -> tuple[str, bytes]:
    return "PARQUET", as_parquet(pa.table({"thing_id": ["a"]}))


def test_damaged_files_break_nothing(things: Dataset) -> None:
    """Random bytes are changed: the result is rows or an error, and never a crash."""
    draw = random.Random(SEED)
    print("seed", SEED)
    table = pa.table({"thing_id": [f"k{i}" for i in range(300)], "title": ["é"] * 300})
    broke = 0
    for name, write in WRITTEN.values():
        body = write(table)
        for _ in range(3):
            damaged = bytearray(body)
            for _ in range(draw.randint(1, 5)):
                damaged[draw.randrange(len(damaged))] = draw.randrange(256)
            try:
                read(name, things, bytes(damaged))
            except FormatError as error:
                broke += 1
                assert "Traceback" not in str(error)
    assert broke


def test_a_reader_that_dies_is_an_error(things: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ColumnarReader, "script", "/nowhere/unpack.py")
    with pytest.raises(FormatError, match="crashed its reader"):
        read("PARQUET", things, as_parquet(pa.table({"thing_id": ["a"]})))


def test_a_file_that_is_too_large(things: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ColumnarReader, "file_limit", 100)
    with pytest.raises(RequestTooLarge):
        read("PARQUET", things, bytes(101), 50)


def test_a_declared_size_is_not_believed(things: Dataset) -> None:
    """A batch whose buffers claim to be larger than the file."""
    body = bytearray(as_stream(pa.table({"thing_id": ["abcdefgh"] * 50})))
    for at in range(0, len(body) - 8, 4):
        if struct.unpack_from("<q", body, at)[0] == 400:  # 50 times eight bytes
            struct.pack_into("<q", body, at, 2**40)
    with pytest.raises(FormatError):
        read("ARROW", things, bytes(body))


def test_columns_that_nobody_wants_are_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    table = pa.table({"big": ["x"], "thing_id": ["a"], "place": [{"line1": "b", "line2": "c"}]})
    flatten, read_columns = unpack.flatten_table, []

    def seen(batch: Any) -> Any:
        flat = flatten(batch)
        read_columns.append((batch.num_rows, flat.schema.names))
        return flat

    monkeypatch.setattr(unpack, "flatten_table", seen)
    kinds = {"thing_id": "KEY", "place.line2": "STRING"}
    data = pa.py_buffer(as_parquet(table))
    frames = list(unpack.make_frames(data, "PARQUET", kinds))
    assert read_columns[-1] == (1, ["thing_id", "place.line2"])
    (rows,) = [content for kind, content in frames if kind == ROWS]
    cells = rows.rstrip(bytes([ROW])).split(bytes([CELL]))
    assert cells == [NULL, b"a", NULL, b"c"]


@pytest.mark.parametrize("form", WRITTEN)
def test_a_value_that_recurs_counts_each_time(
    things: Dataset, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    """A dictionary holds a value once; only the rows show how much the file expands to."""
    name, write = WRITTEN[form]
    places = pa.repeat(pa.scalar(0, pa.int32()), 10_000)
    coded = pa.DictionaryArray.from_arrays(places, pa.array(["x" * 2000]))
    body = write(pa.table({"thing_id": pa.repeat("k", 10_000), "title": coded}), compression="zstd")
    assert len(body) < 30_000
    assert len(read(name, things, body)[1]) == 10_000
    monkeypatch.setattr(ColumnarReader, "free_bytes", 1 << 20)
    with pytest.raises(FormatError, match="expands to more than 300 times its size"):
        read(name, things, body)


def run_as_reader(
    things: Dataset, monkeypatch: pytest.MonkeyPatch, folder: Path, program: str
) -> str:
    """What reading any file says while a program stands in for the other process."""
    script = folder / "stand_in.py"
    script.write_text(program)
    monkeypatch.setattr(ColumnarReader, "script", script)
    with pytest.raises(FormatError) as caught:
        read(*small()[:1], things, small()[1])
    return caught.value.reason


def test_the_process_that_reads_knows_no_secrets(
    things: Dataset, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PENSTOCK_DATABASE_URL", "postgresql://hub:secret@db/hub")
    monkeypatch.setenv("ANY_TOKEN", "secret")
    seen = tmp_path / "seen"
    program = f"import json, os\nopen({str(seen)!r}, 'w').write(json.dumps(dict(os.environ)))\n"
    run_as_reader(things, monkeypatch, tmp_path, program)
    found = json.loads(seen.read_text())
    assert "ARROW_DEFAULT_MEMORY_POOL" in found
    assert "secret" not in str(found)
    assert not {n for n in found if "PENSTOCK" in n or "TOKEN" in n}


@pytest.mark.parametrize(
    ("kind", "size", "reason"),
    [(b"R", 4_000_000_000, "too much at once"), (b"H", 2 << 20, "header is longer than 1 MiB")],
)
def test_frames_are_bounded(
    things: Dataset,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    kind: bytes,
    size: int,
    reason: str,
) -> None:
    """A file that has taken over its reader can send the hub no more than others can."""
    head = struct.pack(">cI", kind, size)
    program = (
        f"import sys\nsys.stdout.buffer.write({head!r})\nsys.stdout.buffer.write(bytes(4 << 20))\n"
    )
    assert reason in run_as_reader(things, monkeypatch, tmp_path, program)
