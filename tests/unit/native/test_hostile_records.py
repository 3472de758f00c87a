"""Serialised records that our own clients never send: the kernel reads them as protobuf does.

Known numbers with other wire types, and unknown numbers, survive ``SerializeToString`` as unknown
fields. The kernel must skip them, or refuse the record, without harm to other records.
"""

from __future__ import annotations

import dataclasses
import os
import random
from collections.abc import Callable
from typing import Any

import pytest
from google.protobuf.message import DecodeError, Message

from chance import SEED
from penstockd.catalog import Dataset
from penstockd.catalog.varint import encode_varint
from penstockd.native.kernel import Kernel
from penstockd.native.records import message_plan

from .test_records import written

MUTATIONS = int(os.environ.get("PENSTOCK_KERNEL_MUTATIONS", "10000"))
#: The mutated records in one call of the kernel.
BATCH = 50
VALUES: dict[int, Callable[[random.Random], bytes]] = {
    0: lambda chance: encode_varint(chance.getrandbits(chance.choice((1, 7, 31, 32, 63, 64)))),
    1: lambda chance: chance.randbytes(8),
    2: lambda chance: _sized(chance.randbytes(chance.choice((0, 1, 5, 200)))),
    5: lambda chance: chance.randbytes(4),
}
_LEFT, _ROW, _CELL = b"\x01", b"\x1e", b"\x1f"


def _sized(data: bytes) -> bytes:
    return encode_varint(len(data)) + data


def full(things: Dataset) -> Message:
    """A record with a value in every field that the kernel reads."""
    record: Any = things.message_class(
        thing_id="k", title="é" * 20, remark="r", flag=True, maybe=False, small=-5, large=2**40,
        small_positive=7, large_positive=9, ratio=0.5, weight=1.25, raw_data=b"x", color=1,
        other_color=2, price="1.50", day="2026-11-29", labels=["a", "", "ccc"], numbers=[1, 2],
        words={"a": "b"}, source="s",
    )  # fmt: skip
    record.seen_at.GetCurrentTime()
    record.home_place.line1 = "line"
    record.home_place.deep_part.code = "c"
    record.home_place.deep_part.count = -1
    return record  # type: ignore[no-any-return]


def mutated(chance: random.Random, data: bytes, numbers: list[int]) -> bytes:
    """``data`` with one to three changes: bytes, its end, or inserted fields."""
    for _ in range(chance.randint(1, 3)):
        match chance.randrange(4):
            case 0 if data:
                at = chance.randrange(len(data))
                data = data[:at] + bytes([chance.randrange(256)]) + data[at + 1 :]
            case 1:
                data = data[: chance.randrange(len(data) + 1)]
            case _:
                wire = chance.choice(list(VALUES))
                number = chance.choice([*numbers, 30, 5000, 2**29 - 1])
                data += encode_varint(number << 3 | wire) + VALUES[wire](chance)
    return data


def kernel(things: Dataset) -> Kernel:
    plan = message_plan(things, written(things))
    assert plan is not None
    return Kernel(plan)


def rows(cells: bytes | None) -> list[bytes] | None:
    return None if cells is None else cells.split(_ROW)[:-1]


def same(found: list[bytes], expected: list[bytes]) -> bool:
    """Whether rows are equal except for cells that the kernel leaves to the interpreter."""
    pairs = zip(found, expected, strict=True)
    cells = [c for pair in pairs for c in zip(*(row.split(_CELL) for row in pair), strict=True)]
    return all(cell in (other, _LEFT) for cell, other in cells)


def test_every_number_with_every_other_wire_type_is_passed_over(things: Dataset) -> None:
    """Fields of the record and of the messages in it."""
    reads, good = kernel(things), full(things)
    expected = rows(reads.messages([good.SerializeToString()]))
    place: Any = things.message_type.fields_by_name["home_place"]
    deep: Any = place.message_type.fields_by_name["deep_part"]
    count = 0
    for path in ([], [place.number], [place.number, deep.number]):
        message: Any = {0: things.message_type, 1: place.message_type, 2: deep.message_type}[
            len(path)
        ]
        for field in message.fields:
            for wire, value in VALUES.items():
                body = encode_varint(field.number << 3 | wire) + value(random.Random(SEED))
                for number in reversed(path):
                    body = encode_varint(number << 3 | 2) + _sized(body)
                record: Any = things.message_class()
                try:
                    record.ParseFromString(good.SerializeToString() + body)
                except DecodeError:
                    continue
                plain = things.message_class()
                plain.CopyFrom(record)
                plain.DiscardUnknownFields()
                if plain == good:  # protobuf does not know it with this wire type
                    found = rows(reads.messages([record.SerializeToString()]))
                    assert found == expected, (field.full_name, wire)
                    count += 1
    assert count > 60


def test_mutations_are_read_as_protobuf_reads_them(things: Dataset) -> None:
    chance, reads, good = random.Random(SEED), kernel(things), full(things).SerializeToString()
    numbers = [f.number for f in things.message_type.fields]
    known = rows(reads.messages([good]))
    assert known is not None
    read = refused = 0
    for _ in range(MUTATIONS):
        record: Any = things.message_class()
        try:
            record.ParseFromString(mutated(chance, good, numbers))
        except DecodeError:
            refused += 1
            continue
        plain: Any = things.message_class()
        plain.CopyFrom(record)
        plain.DiscardUnknownFields()
        found = rows(reads.messages([record.SerializeToString(), good]))
        expected = rows(reads.messages([plain.SerializeToString(), good]))
        assert expected is not None and expected[1] == known[0]
        # A group among the unknown fields is refused with its whole batch.
        assert found is None or same(found, expected), (SEED, record.SerializeToString())
        read += found is not None
    print(f"seed {SEED}: {read} read, {refused} are no messages")
    assert read > MUTATIONS // 3


def test_bytes_of_any_kind_harm_no_neighbour(things: Dataset) -> None:
    """Directly to the kernel, without protobuf in between."""
    chance, reads, good = random.Random(SEED), kernel(things), full(things).SerializeToString()
    numbers = [f.number for f in things.message_type.fields]
    known = rows(reads.messages([good]))
    assert known is not None
    taken = 0
    for _ in range(MUTATIONS // BATCH):
        bad = [mutated(chance, good, numbers) for _ in range(BATCH)]
        for data in bad:
            found = rows(reads.messages([good, data, good]))
            assert found is None or (found[0], found[-1]) == (known[0], known[0]), (SEED, data)
            taken += found is not None
        assert rows(reads.messages([good])) == known
    assert 0 < taken < MUTATIONS


@pytest.mark.parametrize("size", [56, 57, 400])
def test_long_names_of_enum_values_do_not_pass_their_room(things: Dataset, size: int) -> None:
    field = next(f for f in written(things) if f.path == "color")
    values = dict(field.enum_values or {}) | {"X" * size: 3}
    fields = tuple(
        f if f is not field else dataclasses.replace(f, enum_values=values) for f in written(things)
    )
    plan = message_plan(things, fields)
    assert (plan is not None) == (size <= 56)
    if plan is not None:
        record = things.message_class(thing_id="k", color=3).SerializeToString()
        found = Kernel(plan).messages([record] * 100)
        assert found is not None and found.count(b"X" * size) == 100
