"""The set of keys of an export: it contains all of them, and hardly ever seems to contain
another."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator

import pytest

from penstockd import formats
from penstockd.catalog.model import Dataset, Field
from penstockd.native import kernel
from penstockd.native.keys import KeySet, contains_key, count_keys
from shelf import HEAD, exported

SEGMENT = 1 << 20


def random_keys(number: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    made: set[str] = set()
    while len(made) < number:
        length = draw.choice((1, 3, 7, 8, 9, 15, 16, 17, 40))
        made.add("".join(draw.choices("abcdefghijklmnopqrstuvwxyz0123456789é本", k=length)))
    return sorted(made)


@pytest.mark.parametrize("name", list(formats.WRITERS))
@pytest.mark.parametrize("paths", [("thing_id", "title"), ("title", "thing_id"), ("title",)])
def test_every_key_that_was_given_out_is_found(
    things: Dataset, name: str, paths: tuple[str, ...]
) -> None:
    keys = random_keys(3000, 7)
    found = exported(name, things, keys, paths)
    data = found.encode()
    assert found.count == count_keys(data) == len(keys)
    assert all(contains_key(data, key) for key in keys)
    assert not contains_key(data, "another")


def test_a_key_that_was_not_given_out_is_hardly_found(things: Dataset) -> None:
    keys = random_keys(20_000, 11)
    data = exported("CSV", things, keys, ["thing_id"]).encode()
    absent = [f"absent-{i}" for i in range(10_000)]
    # Among a hundred times as many keys, one would be found by chance.
    assert [k for k in absent if contains_key(data, k)] == []
    assert len(data) < 2.8 * len(keys)


def test_the_rows_of_one_record_count_once(things: Dataset) -> None:
    """A shape may make several rows of a record; they follow each other."""
    keys = [f"c-{i}" for i in range(600) for _ in range(i % 4)]
    for name in ("CSV", "PARQUET"):
        found = exported(name, things, keys, ["thing_id"])
        data = found.encode()
        assert found.count == count_keys(data) == len(set(keys))
        assert all(contains_key(data, key) for key in keys) and not contains_key(data, "c-0")


def test_a_record_counts_once_across_segments(things: Dataset) -> None:
    writer = formats.open_writer("CSV", things, [things.key])
    writer.feed(HEAD)
    counts = []
    for key in (b"a", b"a", b"b", b"b", b"a"):
        writer.feed(b"\0\1" + struct.pack(">i", 1) + key)
        writer.keys.complete()  # begins a segment
        counts.append(writer.keys.count)
    assert counts == [1, 1, 2, 2, 3] and writer.rows == 5


def test_the_set_of_no_keys_is_no_bytes(things: Dataset) -> None:
    data = exported("CSV", things, [], ["thing_id"]).encode()
    assert data == b"" and count_keys(data) == 0 and not contains_key(data, "")


@pytest.mark.parametrize("number", [1, 2, 255, 256, 257, 1000])
def test_sets_of_any_size(things: Dataset, number: int) -> None:
    keys = [f"c-{i}" for i in range(number)]
    data = exported("NDJSON", things, keys, ["thing_id"]).encode()
    assert all(contains_key(data, key) for key in keys)
    assert [i for i in range(2000) if contains_key(data, f"d-{i}")] == []


def test_what_was_written_once_is_read_for_ever(things: Dataset) -> None:
    """Sets are stored, so neither the hash nor the layout may ever change."""
    data = exported("CSV", things, ["a", "customer-42", "日本語のキー"], ["thing_id"]).encode()
    assert data.hex() == GOLDEN
    assert contains_key(bytes.fromhex(GOLDEN), "日本語のキー")


GOLDEN = "030000000c0000003f000000955f33675ffd9c22"


def test_sets_are_joined_end_to_end(things: Dataset) -> None:
    first = exported("CSV", things, ["a", "b"], ["thing_id"]).encode()
    second = exported("CSV", things, ["c"], ["thing_id"]).encode()
    assert (
        all(contains_key(first + second, key) for key in "abc") and count_keys(first + second) == 3
    )
    assert not contains_key(first, "c") and not contains_key(second, "a")


def segments(things: Dataset, rows: int) -> Iterator[tuple[formats.DocumentWriter, int]]:
    """The segments after each chunk of an export of these keys, and the number of keys so far."""
    fields: list[Field] = [things.key]
    writer = formats.open_writer("CSV", things, fields)
    writer.feed(HEAD)
    for start in range(0, rows, 1 << 16):
        keys = [b"%d" % i for i in range(start, min(start + (1 << 16), rows))]
        writer.feed(b"".join(b"\0\1" + struct.pack(">i", len(k)) + k for k in keys))
        yield writer, min(start + (1 << 16), rows)
    writer.feed(b"\xff\xff")
    yield writer, rows


def test_segments_of_a_large_export(things: Dataset) -> None:
    rows, drained = SEGMENT + 1000, []
    for writer, _ in segments(things, rows):
        drained += writer.keys.drain()
    assert writer.keys.count == rows and [count_keys(d) for d in drained] == [SEGMENT, 1000]
    data = b"".join(drained)
    assert 21 * rows / 8 < len(data) < 22 * rows / 8
    draw = random.Random(3)
    sample = [0, SEGMENT - 1, SEGMENT, rows - 1, *(draw.randrange(rows) for _ in range(2000))]
    assert all(contains_key(data, str(i)) for i in sample)
    assert sum(contains_key(data, f"x{i}") for i in range(10_000)) <= 2
    assert writer.keys.encode() == b""


def test_an_export_that_is_cut_off_tells_its_keys_so_far(things: Dataset) -> None:
    for writer, taken in segments(things, 1 << 17):
        data = writer.keys.encode()
        assert count_keys(data) == taken and contains_key(data, str(taken - 1))
        assert not contains_key(data, str(taken))


def test_data_that_is_no_set_is_refused(things: Dataset) -> None:
    data = exported("CSV", things, random_keys(600, 5), ["thing_id"]).encode()
    for size in (1, 7, 8, 12, len(data) - 1):
        with pytest.raises(ValueError, match="cut off"):
            contains_key(data[:size], "a")
    damaged = data[:20] + bytes(len(data) - 20)
    with pytest.raises(ValueError, match="damaged"):
        for i in range(100):
            contains_key(damaged, str(i))


def test_a_kernel_that_only_reads_keeps_no_keys() -> None:
    """Negative control for the memory of keys."""
    assert kernel.Kernel().input_start < kernel.Kernel(b"", KeySet()).input_start - SEGMENT
