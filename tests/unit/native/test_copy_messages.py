"""PostgreSQL's messages as a socket delivers them, and the COPY stream extracted from them."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstockd.formats import FormatError
from penstockd.native.copy_messages import CopyMessages

KINDS = st.sampled_from([b"H", b"N", b"S"])
MESSAGES = st.lists(st.tuples(st.one_of(st.just(b"d"), KINDS), st.binary(max_size=300)))


def framed(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack(">i", len(body) + 4) + body


@given(MESSAGES, st.integers(1, 400), st.data())
def test_the_stream_comes_out_whole_however_it_arrives(
    messages: list[tuple[bytes, bytes]], size: int, data: st.DataObject
) -> None:
    told: list[tuple[bytes, bytes]] = []
    reading = CopyMessages(lambda *message: told.append(message), size)
    wire = b"".join(framed(*message) for message in messages)
    pieces: list[bytes] = []
    while wire:
        count = data.draw(st.integers(1, len(wire)))
        reading.space()[:count] = wire[:count]
        pieces += map(bytes, reading.feed(count))
        wire = wire[count:]
    assert {len(piece) for piece in pieces} <= {size}
    rest = bytes(reading.rest())
    assert len(rest) < size
    assert b"".join([*pieces, rest]) == b"".join(b for k, b in messages if k == b"d")
    assert told == [message for message in messages if message[0] != b"d"]


def test_a_row_may_be_larger_than_what_is_read_at_once() -> None:
    told: list[tuple[bytes, bytes]] = []
    reading = CopyMessages(lambda *message: told.append(message), 1 << 20)
    row = bytes(range(256)) * 9000
    wire = framed(b"d", row) + framed(b"c", b"")
    pieces: list[bytes] = []
    while wire:
        space = reading.space()
        count = min(len(space), len(wire))
        space[:count] = wire[:count]
        pieces += map(bytes, reading.feed(count))
        wire = wire[count:]
    assert [len(piece) for piece in pieces] == [1 << 20, 1 << 20]
    assert b"".join([*pieces, bytes(reading.rest())]) == row
    assert told == [(b"c", b"")]


@pytest.mark.parametrize("wire", [b"d\0\0\0\3", b"E\0\0\0\0", b"N\x7f\0\0\0", b"\0\xff\0\0\0"])
def test_what_is_no_message_is_refused(wire: bytes) -> None:
    reading = CopyMessages(lambda *message: None, 100)
    reading.space()[: len(wire)] = wire
    with pytest.raises(FormatError):
        list(reading.feed(len(wire)))
