"""No chunk of an export leaves before the audit durably names its records."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from chance import SEED
from penstockd.calls import Permit
from penstockd.exports.pipeline import PIECE_BYTES, Encoder, Piece, send_pieces

PIECES = 60


class Lines:
    """A writer of lines of ten bytes, as many as it is fed bytes."""

    def __init__(self) -> None:
        self.rows = 0
        self.keys = SimpleNamespace(complete=lambda: None, drain=list, count=0)

    def head(self) -> bytes:
        return b"head\n"

    def feed(self, data: bytes) -> bytes:
        self.rows += len(data)
        self.keys.count = self.rows + 1  # it knows the key of the next record already
        return b"a record.\n" * len(data)


def test_a_resumed_file_counts_the_records_that_it_drops() -> None:
    """What the first call sent and what the second one sends are the whole file, to the chunk."""
    chance = random.Random(SEED)
    for _ in range(50):
        sizes = [chance.randrange(1, 9) for _ in range(10)]
        whole = len(b"head\n") + 10 * sum(sizes)
        skip = chance.choice([0, 5, 15, whole, chance.randrange(whole)])
        encoder = Encoder(Lines(), skip)  # type: ignore[arg-type]
        kept = encoder.start(bytes(sizes[0])) + b"".join(encoder.feed(bytes(n)) for n in sizes[1:])
        assert len(kept) == whole - skip and encoder.rows == sum(sizes)
        dropped = max(0, skip - len(b"head\n")) // 10  # whole lines
        assert dropped - max(sizes) < encoder.skipped_records <= dropped


def test_a_piece_of_a_chunk_counts_no_record_of_its_later_pieces() -> None:
    """The writer knows the keys of the whole chunk when its first piece is cut."""
    encoder = Encoder(Lines())  # type: ignore[arg-type]
    list(encoder.cut(encoder.start(bytes(10))))
    first, *between, last = encoder.cut(encoder.feed(bytes(PIECE_BYTES // 4)))
    assert between and {p.records for p in (first, *between)} == {10}
    assert last.records == encoder.rows


class Refused(Exception):
    """The audit refuses an entry."""


class Ledger:
    """An audit whose entries fail now and then, and a client."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.durable: set[bytes] = set()
        self.received: list[bytes] = []
        self.first = asyncio.Event()

    async def record(self, keys: Sequence[bytes]) -> None:
        await asyncio.sleep(0)
        if self.chance.random() < 0.1:
            raise Refused
        self.durable.update(keys)

    async def take(self, piece: Piece) -> None:
        await asyncio.sleep(0)
        self.received.append(piece.keys)
        self.first.set()

    @property
    def lost(self) -> set[bytes]:
        """Records that left although the audit does not name them."""
        return set(self.received) - self.durable


class Gate(Ledger):
    """The order of an export: record, then send."""

    async def disclose(self, pieces: Sequence[Piece]) -> Permit:
        await self.record([piece.keys for piece in pieces])
        return Permit()

    async def send(self, piece: Piece, permit: Permit) -> None:
        assert piece.keys in self.durable
        await self.take(piece)


class AfterwardsGate(Ledger):
    """The earlier order: send, then record."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        self._held: list[bytes] = []

    async def disclose(self, pieces: Sequence[Piece]) -> Permit:
        return Permit()

    async def send(self, piece: Piece, permit: Permit) -> None:
        await self.take(piece)
        self._held.append(piece.keys)
        if len(self._held) == 5:
            held, self._held = self._held, []
            await self.record(held)


async def run(gate: Any, seed: int) -> bool:
    """Send some chunks; returns whether all were sent."""
    encoded: asyncio.Queue[Piece] = asyncio.Queue(4)
    chance = random.Random(seed)

    async def produce() -> None:
        for i in range(PIECES):
            if chance.random() < 0.3:
                await asyncio.sleep(0)
            await encoded.put(Piece(b"x", i, b"%d" % i, 1))

    producing: Coroutine[Any, Any, None] = produce()
    try:
        await send_pieces(encoded, producing, gate, lambda: None)
    except Refused:
        return False
    return True


@pytest.mark.parametrize("seed", [SEED + i for i in range(30)])
async def test_what_left_is_known(seed: int) -> None:
    gate = Gate(seed)
    whole = await run(gate, seed)
    assert not gate.lost, seed
    in_order = [b"%d" % i for i in range(len(gate.received))]
    assert gate.received == in_order
    assert whole == (len(in_order) == PIECES), seed


async def test_the_old_order_loses_some() -> None:
    """The negative control."""
    lost = []
    for seed in range(30):
        gate = AfterwardsGate(seed)
        await run(gate, seed)
        lost.append(len(gate.lost))
    assert sum(lost) > 0


async def test_a_piece_waits_for_its_entry_and_not_for_the_next_one() -> None:
    """A finished chunk leaves, even if nothing more is encoded for a long time."""
    gate = Gate(0)
    gate.chance.random = lambda: 1.0  # type: ignore[method-assign]  # nothing fails
    encoded: asyncio.Queue[Piece] = asyncio.Queue()
    await encoded.put(Piece(b"x", 1, b"first", 1))
    stopped = asyncio.Event()

    async def produce() -> None:
        await stopped.wait()

    sending = asyncio.create_task(send_pieces(encoded, produce(), gate, lambda: None))
    async with asyncio.timeout(60):
        await gate.first.wait()
    assert gate.received == [b"first"]
    stopped.set()
    await sending
