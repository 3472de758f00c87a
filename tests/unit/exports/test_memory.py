"""The memory of an export: a bounded queue before its client, and nothing after its end.

Resident memory would show it too, but with much else on the machine: here it is counted.
"""

from __future__ import annotations

import asyncio
import gc
import io
import weakref
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Any

import asyncpg
import pyarrow.parquet as pq
import pytest

from harness import eventually
from penstockd import formats
from penstockd.calls import Permit
from penstockd.catalog.model import Dataset
from penstockd.exports import pipeline
from penstockd.exports.pipeline import Encoder, Piece, Take, pump_beside, pump_pieces
from penstockd.formats import columns, parquet
from penstockd.formats.parquet import ParquetWriter
from penstockd.native import kernel
from penstockd.native.keys import KeySet, contains_key
from penstockd.store.copyout import CopyOut
from shelf import HEAD, copy, exported

#: Text that does not compress: a group of Parquet's rows becomes megabytes.
ROWS, QUERY = (
    12_000,
    """
SELECT 'k' || i, (SELECT string_agg(md5((64 * i + k)::text), '') FROM generate_series(1, 32) AS k)
FROM generate_series(1, 12000) AS i
""",
)
PIECE_BYTES = 1 << 19


@pytest.fixture
def no_collector() -> Iterator[None]:
    """Without the garbage collector, reference cycles keep their memory."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("name", formats.WRITERS)
def test_the_kernel_goes_with_its_export(things: Dataset, name: str) -> None:
    writer = formats.open_writer(name, things, [things.key], compression="GZIP")
    held = weakref.ref(writer.inner._kernel)  # type: ignore[attr-defined]
    assert writer.head() + writer.feed(copy([[b"a"], [b"b"]])) + writer.tail()
    assert held() is not None
    del writer
    # A thread may take a moment to release its last job.
    eventually(lambda: held() is None)


@pytest.mark.usefixtures("no_collector")
@pytest.mark.parametrize("name", ["CSV", "JSON", "NDJSON", "XML", "PARQUET", "ARROW"])
def test_the_kernel_goes_with_an_export_that_was_cut_off(things: Dataset, name: str) -> None:
    writer = formats.open_writer(name, things, [things.key])
    held = weakref.ref(writer._kernel)
    writer.head()
    writer.feed(copy([[b"a"], [b"b"]])[:-2])
    with pytest.raises(formats.FormatError):
        writer.tail()
    del writer
    eventually(lambda: held() is None)


@pytest.mark.usefixtures("no_collector")
def test_a_circle_would_keep_it() -> None:
    """The control: with an ordinary reference from the kernel to its keys."""
    keys = KeySet()
    made = kernel.Kernel(b"", keys)
    made.circle = keys  # type: ignore[attr-defined]
    held = weakref.ref(made)
    del made, keys
    assert held() is not None
    gc.collect()
    assert held() is None


def test_keys_outlive_their_writer(things: Dataset) -> None:
    writer = formats.open_writer("CSV", things, [things.key])
    writer.feed(HEAD + copy([[b"a"], [b"b"]])[len(HEAD) : -2])
    keys = writer.keys
    del writer
    assert contains_key(keys.encode(), "a") and contains_key(keys.encode(), "b")
    assert contains_key(exported("CSV", things, ["c"], ["thing_id"]).encode(), "c")


class Collecting:
    """Collects what is sent, and checks that it was disclosed before."""

    def __init__(self, found: list[Piece]) -> None:
        self._found, self._disclosed = found, 0

    async def disclose(self, pieces: Sequence[Piece]) -> Permit:
        await asyncio.sleep(0)
        self._disclosed += len(pieces)
        return Permit()

    async def send(self, piece: Piece, permit: Permit) -> None:
        self._found.append(piece)
        assert len(self._found) <= self._disclosed


async def pieces(
    module_url: str, things: Dataset, name: str, *, beside: bool
) -> tuple[list[Piece], Encoder]:
    """The chunks that an export would send."""
    found: list[Piece] = []
    fields = [things.key, things.by_path["title"]]
    encoder = Encoder(formats.open_writer(name, things, fields))

    gate = Collecting(found)
    connection: Any = await asyncpg.connect(module_url)
    try:
        if beside:
            await pump_beside(CopyOut(connection), QUERY, encoder, gate)
        else:
            await pump_pieces(reading(connection), encoder, gate)
    finally:
        connection.terminate()
    return found, encoder


def reading(connection: Any) -> Callable[[Take], Awaitable[None]]:
    """The read as the driver does it."""

    async def read(take: Take) -> None:
        await connection.copy_from_query(QUERY, output=take, format="binary")

    return read


@pytest.mark.parametrize("name", ["PARQUET", "ARROW", "CSV"])
@pytest.mark.parametrize("beside", [True, False])
async def test_no_piece_is_large(module_url: str, things: Dataset, name: str, beside: bool) -> None:
    found, encoder = await pieces(module_url, things, name, beside=beside)
    # So that chunks that wait for a client are at most QUEUE_PIECES times as large.
    assert max(len(piece.data) for piece in found) <= PIECE_BYTES == pipeline.PIECE_BYTES
    assert sum(len(piece.data) for piece in found) == encoder.byte_count > 10 << 20
    rows = [piece.rows for piece in found]
    assert rows == sorted(rows) and rows[-1] == ROWS


@pytest.mark.parametrize("beside", [True, False])
async def test_groups_are_larger_than_pieces(
    module_url: str, things: Dataset, beside: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control: the writer's output at once is more than may wait as one chunk."""
    monkeypatch.setattr(pipeline, "PIECE_BYTES", 1 << 30)
    found, _ = await pieces(module_url, things, "PARQUET", beside=beside)
    assert max(len(piece.data) for piece in found) > 4 * PIECE_BYTES


def test_rows_count_with_their_last_byte(things: Dataset) -> None:
    encoder = Encoder(formats.open_writer("CSV", things, [things.key]))
    key = b"k" * (PIECE_BYTES + PIECE_BYTES // 2)
    first = list(encoder.cut(encoder.start(copy([[key]])[:-2])))
    assert [(len(p.data), p.rows) for p in first[:-1]] == [(PIECE_BYTES, 0)]
    assert first[-1].rows == 1
    second = list(encoder.cut(encoder.feed(copy([[b"z"]])[len(HEAD) :])))
    assert [(p.data, p.rows) for p in second] == [(b"z\n", 2)]


def spaces(writer: ParquetWriter) -> list[int]:
    """The number of blocks in each of the two buffers for groups."""
    return [len(space.blocks) for space in (writer.space, writer.other_space)]


def test_groups_use_the_same_memory_again(things: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "BATCH_BYTES", 20_000)
    monkeypatch.setattr(columns, "FIRST_BYTES", 100)
    monkeypatch.setattr(parquet, "GROUP_BYTES", 100_000)
    monkeypatch.setattr(parquet, "ROOM", 30_000)
    monkeypatch.setattr(parquet, "TRIM_GROUPS", 2)
    writer = ParquetWriter(things, [things.key, things.by_path["title"]])
    document, seen = writer.head(), []
    # Now and then rows so large that no buffer has room for them.
    rows = [[b"%06d" % i, b"%d" % i * (100_000 if i in (2000, 2001) else 40)] for i in range(5000)]
    stream = copy(rows)
    for at in range(0, len(stream), 10_000):
        document += writer.feed(stream[at : at + 10_000])
        seen.append(max(spaces(writer)))
    document += writer.tail()
    assert max(seen) > 1, "the control: a large row takes a block of its own"
    assert spaces(writer) == [1, 1]
    file = pq.ParquetFile(io.BytesIO(document))
    assert file.num_row_groups > 4
    assert file.read().column("title").to_pylist() == [row[1].decode() for row in rows]
