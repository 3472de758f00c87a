"""The kernel's results for CSV rows, compared with the interpreter's."""

from __future__ import annotations

import itertools
import os
import random
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chance import SEED
from csv_drawn import LABELS, ODD, REVISION, TIME, WRONG, files, lines_of, quoted
from penstockd.catalog import Dataset
from penstockd.catalog.keys import key_reader
from penstockd.catalog.load import load_catalog
from penstockd.catalog.model import Kind
from penstockd.demo import DATASETS, generate_records
from penstockd.formats import BadRow, FormatError, open_reader
from penstockd.formats.csv_reader import CsvReader
from penstockd.native import kernel
from penstockd.native.kernel import Kernel
from penstockd.native.load_plan import load_plan
from penstockd.resources import find_descriptors
from penstockd.store.fresh import FreshRows
from penstockd.store.rows import stored_row
from penstockd.store.staging import Stager
from shelf import writable
from worlds import COMMON, HEAD, compiled

EXAMPLES = int(os.environ.get("PENSTOCK_FUZZ_EXAMPLES", "60"))


class Outcome:
    """All results of a reader for a file."""

    def __init__(
        self, dataset: Dataset, data: bytes, *, native: bool, chunk: int = 1 << 20
    ) -> None:
        self.fresh = FreshRows()
        self.rows: dict[int, list[Any]] = {}
        self.bad: list[BadRow] = []
        self.error = ""
        self.reader = open_reader("CSV", dataset, dataset.fields)
        if native:
            self.reader.write_as(TIME, REVISION)
        try:
            for at in range(0, len(data), chunk):
                self._take(self.reader.feed(data[at : at + chunk]))
            self._take(self.reader.close())
        except FormatError as error:
            self.error = str(error)
        decoded = self.fresh.decode(range(len(self.fresh)))
        for number, row in zip(self.fresh.numbers, decoded, strict=True):
            assert number not in self.rows
            self.rows[number] = row

    def _take(self, batches: Iterator[Any]) -> None:
        for batch in batches:
            for number, row in zip(batch.numbers, batch.rows, strict=True):
                assert number not in self.rows
                self.rows[number] = row
            self.bad += batch.bad
            if batch.fresh:
                self.fresh.extend(batch.fresh)

    def said(self) -> Any:
        rows = sorted((n, list(map(repr, r))) for n, r in self.rows.items())
        return rows, sorted(self.bad, key=lambda b: b.row), self.error, self.reader.rows


def entries(fresh: FreshRows) -> list[tuple[int, str, str, int, bytes]]:
    """The entries of the log: ordinal, dataset, key, operation, after."""
    found, at = [], 0
    for size in fresh.entry_sizes:
        columns, end = tuple_at(fresh.entries, at)
        assert end == at + size and len(columns) == 5
        ordinal, dataset, key, operation, after = columns
        found.append(
            (
                struct.unpack(">q", ordinal)[0],
                dataset.decode(),
                key.decode(),
                struct.unpack(">h", operation)[0],
                after,
            )
        )
        at = end
    assert at == len(fresh.entries)
    return found


def tuple_at(data: bytes | bytearray, at: int) -> tuple[list[bytes], int]:
    """One row of COPY BINARY without NULLs, and its end."""
    (count,) = struct.unpack_from(">h", data, at)
    at += 2
    columns = []
    for _ in range(count):
        (size,) = struct.unpack_from(">i", data, at)
        columns.append(bytes(data[at + 4 : at + 4 + size]) if size >= 0 else b"")
        at += 4 + max(size, 0)
    return columns, at


def agree(dataset: Dataset, data: bytes, chunk: int = 1 << 20) -> Outcome:
    """Check that both ways agree on a file; returns the native result."""
    slow = Outcome(dataset, data, native=False, chunk=chunk)
    fast = Outcome(dataset, data, native=True, chunk=chunk)
    assert fast.said() == slow.said()
    assert not slow.fresh
    assert len(fast.fresh.row_sizes) == len(fast.fresh.entry_sizes) == len(fast.fresh)
    if fast.fresh:
        fields = fast.reader.fields
        rows = [stored_row(fields, list(slow.rows[n])) for n in fast.fresh.numbers]
        staged = Stager.of(dataset).new(fields, rows, TIME, REVISION)
        key_of = key_reader(dataset, fields)
        expected = [
            (i, dataset.name, key_of(row), 1, image)
            for i, (row, image) in enumerate(zip(rows, staged[1], strict=True))
        ]
        assert entries(fast.fresh) == expected
        assert fast.fresh.keys == [key_of(row) for row in rows]
    return fast


def test_any_file_gives_the_same_rows_images_and_complaints(things: Dataset) -> None:
    seen = {"fresh": 0, "left": 0, "bad": 0, "broken": 0}

    @settings(max_examples=EXAMPLES)
    @given(files(things, wrong=True), st.sampled_from([1 << 20, 7]))
    def check(data: bytes, chunk: int) -> None:
        fast = agree(things, data, chunk)
        seen["fresh"] += len(fast.fresh)
        seen["left"] += len(fast.rows) - len(fast.fresh)
        seen["bad"] += len(fast.bad)
        seen["broken"] += bool(fast.error)

    check()
    print(seen)
    # Otherwise the test would show nothing.
    assert min(seen["fresh"], seen["left"], seen["bad"]) > EXAMPLES / 20, seen


KEY_FIELDS = {
    "number": ("sint64", ["0", "-1", "10", str(2**63 - 1), str(-(2**63))], ["01", "-0", "x", ""]),
    "name": ("string", ["a", "-1", "a b", ".", '"', "0"], ["a~b", "%", "%7E", "ä", "/", ""]),
    "count": ("fixed64", ["0", "7", str(2**63 - 1)], ["-1", "007", str(2**64), str(2**64 - 1), ""]),
    "short": ("int32", ["0", str(-(2**31))], [str(2**31), "--1", "-", ""]),
}


@pytest.mark.parametrize("names", [["number"], ["count"], ["short", "name"], ["name", "number"]])
def test_keys_of_numbers_and_of_several_parts(tmp_path: Path, names: list[str]) -> None:
    """Rows whose cells are the parts of their keys are taken; all others are left."""
    option = 'option (penstock.options.v1.dataset) = {title: "Probes"};'
    key = "[(penstock.options.v1.field).key = true]"
    fields = [f"{KEY_FIELDS[n][0]} {n} = {i} {key};" for i, n in enumerate(names, 1)]
    text = HEAD + f"message Probe {{ {option} {' '.join(fields)} string other = 9; {COMMON}"
    dataset = compiled(tmp_path, text)["probes"]
    usual = list(itertools.product(*(KEY_FIELDS[n][1] for n in names)))
    odd = [
        (*row[:i], value, *row[i + 1 :])
        for row, (i, n) in itertools.product(usual[:3], enumerate(names))
        for value in KEY_FIELDS[n][2]
    ]
    # The header may name the fields in another order.
    header = [dataset.by_path[n] for n in (*reversed(names), "other")]
    for rows, taken in ((usual, len(usual)), (odd, 0), ([*odd, *usual], len(usual))):
        cells = [{**dict(zip(names, row, strict=True)), "other": "o"} for row in rows]
        assert len(agree(dataset, lines_of(header, cells)).fresh) == taken


def test_all_demo_data_that_can_be_is_taken() -> None:
    catalog = load_catalog(find_descriptors())
    for name in DATASETS:
        fast = agree(catalog[name], b"".join(generate_records(name, 300)))
        assert fast.reader.rows >= 50
        # Lines of orders are messages, and attributes of some products are a map with entries.
        if name == "orders":
            assert not fast.fresh
        elif name == "products":
            assert 0 < len(fast.fresh) < fast.reader.rows
        else:
            assert len(fast.fresh) == fast.reader.rows, name


CANONICAL: dict[str, list[str]] = {
    "title": ["", "plain", "é日本🙂", "tab\tnewline\nreturn\r", "x" * 300, "\x7f"],
    "remark": ["", "0"],
    "flag": ["true", "false"],
    "maybe": ["true", "false"],
    "small": ["0", "-1", "2147483647", "-2147483648"],
    "large": ["0", "9223372036854775807", "-9223372036854775808"],
    "small_positive": ["0", "4294967295"],
    "large_positive": ["0", "10000", "9999999999999999999"],
    "ratio": ["0", "-1.5", "0.1", "-0", "16777216", "0.30000001"],
    "weight": [
        "0",
        "0.1",
        "123456789.012345",
        "-2.5",
        "-0",
        "-0.00",
        "0.3333333333333333",
        "0.0000000000000001",
        "9007199254740992",
    ],
    "color": ["COLOR_UNSPECIFIED", "RED"],
    "other_color": ["COLOR_UNSPECIFIED", "GREEN"],
    "price": ["0", "0.0", "0.000000001", "12.50", "-10000", "99999999999999999999999999999"],
    "day": ["0001-01-01", "2000-02-29", "9999-12-31"],
    "seen_at": ["1970-01-01T00:00:00Z", "1969-12-31T23:59:59.5Z", "2024-02-29T12:00:00.123456Z"],
    "home_place.line1": ["", "x"],
    "home_place.deep_part.count": ["0", "5"],
    "home_place.shade": ["RED"],
    "words": ["{}"],
    "numbers": ["[]"],
    "all_parts": ["[]"],
    "labels": [
        "[]",
        '["a"]',
        '["",""]',
        '["a", "b"]',
        '["a","\\"\\\\\\/\\n\\r\\t é"]',
        '["' + "y" * 200 + '"]',
    ],
}


@pytest.mark.parametrize("path", CANONICAL)
def test_what_exports_print_is_taken(things: Dataset, path: str) -> None:
    fields = [things.key, things.by_path[path]]
    cells = [{"thing_id": f"k{i}", path: text} for i, text in enumerate(CANONICAL[path])]
    cells.append({"thing_id": "null"})
    fast = agree(things, lines_of(fields, cells))
    assert len(fast.fresh) == len(cells), fast.rows


LEFT: list[tuple[str, str]] = [
    ("title", "a\ufffe"), ("title", "\x01"), ("title", "\x1f"),
    ("flag", "TRUE"), ("small", "007"), ("small", "-0"), ("small", "2147483648"), ("small", "1.0"),
    ("large", "99999999999999999999"), ("large_positive", "18446744073709551615"),
    ("small_positive", "-1"), ("weight", "1e3"), ("weight", "NaN"), ("weight", "00"),
    ("weight", "123456789012345678"), ("weight", "9007199254740993"),
    ("color", "1"), ("color", "red"), ("price", "-0.0"),
    ("price", "00.5"), ("price", "1.0000000001"), ("price", "1" * 39), ("price", "1."),
    ("day", "2023-02-29"), ("day", "2024-2-9"), ("seen_at", "2024-02-29T12:00:00+00:00"),
    ("seen_at", "2024-02-29T12:00:00.1234567Z"), ("seen_at", "2024-02-29t12:00:00Z"),
    ("seen_at", "0001-01-01T00:00:00Z"), ("seen_at", "9999-12-31T23:59:59.999999Z"),
    ("labels", '["\\u0061"]'), ("labels", '["\\b"]'), ("labels", '["a",  "b"]'), ("labels", "[1]"),
    ("labels", '["a"'), ("labels", '["a\\"]'), ("raw_data", "AA=="), ("numbers", '["1"]'),
    ("words", '{"a":"b"}'), ("words", "[]"), ("all_parts", "[ ]"),
    ("numbers", "{}"),
    ("thing_id", "a/b"), ("thing_id", ""), ("thing_id", "é"), ("thing_id", "."),
    ("thing_id", ".."), ("thing_id", "x" * 513), ("thing_id", "\x7f"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "text"), LEFT)
def test_other_spellings_are_left(things: Dataset, path: str, text: str) -> None:
    fields = [things.key, things.by_path["title" if path == "thing_id" else path]]
    cells = [{"thing_id": "before"}, {"thing_id": "k", path: text}, {"thing_id": "after"}]
    fast = agree(things, lines_of(fields, cells))
    assert fast.fresh.numbers == [1, 3]


@pytest.mark.parametrize("line", [b"k", b"k,x,y", b",x", b"\xff,x", b"k,\xed\xa0\x80", b"k,\xc3"])
def test_rows_that_are_no_rows_are_left(things: Dataset, line: bytes) -> None:
    fast = agree(things, b"thing_id,title\na,1\n" + line + b"\nb,2\n")
    assert fast.fresh.numbers == [1, 3]


def test_every_odd_and_wrong_text_in_every_column(things: Dataset) -> None:
    texts = {*itertools.chain.from_iterable(ODD.values()), *LABELS, *WRONG}
    for field in writable(things):
        rows = [b"k%d," % i + quoted(t, False) for i, t in enumerate(sorted(texts))]
        if field.key:
            rows = [quoted(t, False) + b",x" for t in sorted(texts)]
        other = "title" if field.key else field.path
        agree(things, b"\n".join([f"thing_id,{other}".encode(), *rows, b""]))


def test_a_nested_message_has_its_defaults_where_it_is_present(things: Dataset) -> None:
    texts = {Kind.STRING: "", Kind.INT64: "7", Kind.ENUM: "RED"}
    leaves = [f for f in things.fields if f.path.startswith("home_place.")]
    paths = [f.path for f in leaves if f.kind is not Kind.STRUCT]  # the kernel leaves these
    fields = [things.key, *(things.by_path[p] for p in paths)]
    cells = []
    for i, given_paths in enumerate(itertools.product([False, True], repeat=len(paths))):
        present = [p for p, there in zip(paths, given_paths, strict=True) if there]
        cells.append({"thing_id": f"k{i}"} | {p: texts[things.by_path[p].kind] for p in present})
    assert len(agree(things, lines_of(fields, cells)).fresh) == 2 ** len(paths)


def test_a_file_of_other_spellings_is_soon_read_without_the_kernel(things: Dataset) -> None:
    data = b"thing_id,flag\n" + b"".join(b"k%d,TRUE\n" % i for i in range(20_000))
    fast = agree(things, data)
    assert isinstance(fast.reader, CsvReader) and fast.reader.loader is None


def plan_of(dataset: Dataset) -> bytes:
    plan = load_plan(dataset, writable(dataset), TIME, REVISION)
    assert plan is not None
    return plan


def loaded(plan: bytes, cells: bytes, count: int, ordinal: int) -> tuple[bytes, ...]:
    """Everything that the kernel makes of some rows, in one call or several."""
    parts = list(Kernel(plan).load(cells, count, ordinal))
    return tuple(map(b"".join, zip(*parts, strict=True)))


def test_garbage_does_not_harm_the_kernel(things: Dataset) -> None:
    print("PENSTOCK_FUZZ_SEED =", SEED)
    chance = random.Random(SEED)
    plan, width = plan_of(things), len(writable(things))
    good = [b"k", *[b"\x1d"] * (width - 1)]
    for _ in range(EXAMPLES):
        rows = []
        for _ in range(chance.randint(1, 6)):
            cells = list(good)
            for _ in range(chance.randint(0, 4)):
                text = chance.choice([*WRONG, *LABELS, *chance.choice(list(ODD.values()))])
                raw = chance.choice([text.encode(), chance.randbytes(chance.randint(0, 40))])
                cells[chance.randrange(width)] = raw.replace(b"\x1e", b"").replace(b"\x1f", b"")
            if chance.random() < 0.2:
                cells = [chance.randbytes(chance.randint(0, 99)).replace(b"\x1e", b"")]
            rows.append(b"\x1f".join(cells) + b"\x1e")
        together = loaded(plan, b"".join(rows), len(rows), 0)
        ordinal, apart = 0, []
        for row in rows:
            apart.append(loaded(plan, row, 1, ordinal))
            ordinal += apart[-1][0].count(b"\x1f")
        # Whatever one row did, it did not touch the others.
        assert together == tuple(map(b"".join, zip(*apart, strict=True)))


def test_output_that_has_no_room_at_once_comes_in_parts(
    things: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    cells = b"".join(b"k%d\x1e" % i for i in range(2_000))
    plan = load_plan(things, [things.key], TIME, REVISION)
    assert plan is not None
    whole = loaded(plan, cells, 2_000, 5)
    monkeypatch.setattr(kernel, "ROOM", 10_000)
    assert len(list(Kernel(plan).load(cells, 2_000, 5))) > 1
    assert loaded(plan, cells, 2_000, 5) == whole


def test_rows_of_the_longest_size_are_taken(things: Dataset) -> None:
    long = "é" * (500 << 10)
    data = lines_of([things.key, things.by_path["title"]], [{"thing_id": "a", "title": long}] * 1)
    assert len(agree(things, data).fresh) == 1


def test_a_dataset_that_the_database_must_complain_of_has_no_plan(things: Dataset) -> None:
    header = [things.key]
    assert load_plan(things, header, TIME, REVISION) is not None
    demanding = Dataset(
        things.name, "", things.message_type, things.message_class,
        tuple(_strict(f) for f in things.fields),
    )  # fmt: skip
    assert load_plan(demanding, header, TIME, REVISION) is None


def _strict(field: Any) -> Any:
    return replace(field, nullable=False) if field.path == "day" else field
