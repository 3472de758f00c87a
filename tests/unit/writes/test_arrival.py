"""When an import may lock rows, what it buffers until then, and how long it waits for its
client."""

from __future__ import annotations

import asyncio
import errno
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import PATIENCE
from penstockd.errors import ClientStalled, ShareExhausted, StorageFull
from penstockd.shares import Payer, Shares, ShareTerms, payer_var
from penstockd.spools import Spool, SpoolPlace
from penstockd.writes import arrival
from penstockd.writes.arrival import Arrival, ImportLimits
from penstockd.writes.pace import Pace, SlowTerms

MIB = 1 << 20


class Client:
    """Sends pieces of 1 MiB, each at its time by the test's clock, then nothing."""

    def __init__(self, times: list[float]) -> None:
        self.now, self._times = 0.0, times
        self.silent, self.end = asyncio.Event(), asyncio.Event()

    async def pieces(self) -> AsyncIterator[bytes]:
        for self.now in self._times:  # noqa: B020  # the clock goes on
            yield bytes(MIB)
        self.silent.set()
        await self.end.wait()


def arrives(client: Client) -> Arrival:
    made = Arrival(b"x", client.pieces(), ImportLimits(PATIENCE, PATIENCE))
    made._clock = lambda: client.now
    return made


async def begins(client: Client) -> bool:
    """Whether the import begins before the whole file has arrived."""
    gathering = asyncio.create_task(arrives(client).gather())
    silent = asyncio.create_task(client.silent.wait())
    try:
        async with asyncio.timeout(PATIENCE):
            await asyncio.wait({gathering, silent}, return_when=asyncio.FIRST_COMPLETED)
            return not client.silent.is_set()
    finally:
        client.end.set()
        silent.cancel()
        await gathering


async def test_no_row_is_locked_for_a_client_that_was_fast_once() -> None:
    at_once = [0.01 * i for i in range(20)]
    assert not await begins(Client(at_once))
    assert not await begins(Client([*at_once, 5.0, 5.01, 10.0]))  # between long silences
    # The control: an import that stays fast begins while it arrives, and so does a large one.
    assert await begins(Client([i / 5 for i in range(20)]))
    assert await begins(Client([0.0] * 65))


async def test_what_came_quickly_is_no_credit_for_a_long_silence() -> None:
    client = Client([])
    upload, pace = client.pieces(), Pace(0.2, arrival.LOCKED_RATE)
    with pytest.raises(ClientStalled):
        async with asyncio.timeout(PATIENCE):  # 60 MiB take 960 s at that rate
            await pace.next(upload, 60 * MIB)
    assert client.silent.is_set()


async def drip(seconds: float) -> AsyncIterator[bytes]:
    """A client that is never silent for long, and never fast."""
    for _ in range(round(seconds / 0.02)):
        await asyncio.sleep(0.02)
        yield bytes(2000)


async def take_all(pace: Pace, upload: AsyncIterator[bytes]) -> int:
    """How many bytes come before the upload ends, or is ended."""
    received = size = 0
    while (piece := await pace.next(upload, received)) is not None:
        received = len(piece)
        size += received
    return size


async def test_rows_are_not_locked_for_long_for_a_client_that_just_keeps_up() -> None:
    """At the least rate it would hold them for as long as an import may take."""
    least, fast = 1000, 200_000
    with pytest.raises(ClientStalled, match="rows were locked"):
        async with asyncio.timeout(PATIENCE):
            await take_all(Pace(PATIENCE, least, SlowTerms(0.3, fast)), drip(3600))
    # The controls: the least rate alone lets it go on, and so does a rate that it reaches.
    assert await take_all(Pace(PATIENCE, least), drip(1)) == 100_000
    assert await take_all(Pace(PATIENCE, least, SlowTerms(PATIENCE, fast)), drip(1)) == 100_000
    assert arrival.LOCKED_SLOW.seconds <= 30
    assert arrival.LOCKED_SLOW.rate == arrival.FAST_RATE


async def test_a_file_that_is_not_loaded_must_come_in_time_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As when its request id is already used, and only its digest is needed."""
    monkeypatch.setattr(arrival, "KEPT_BYTES", 0)
    made = Arrival(b"x", Client([]).pieces(), ImportLimits(PATIENCE, 0.2))
    await made.gather()
    async with asyncio.timeout(PATIENCE):
        with pytest.raises(ClientStalled, match=r"did not arrive within 0\.2 s"):
            assert [piece async for piece in made.read_unlocked()] == []


async def test_while_the_hub_is_busy_no_client_is_silent() -> None:
    """The piece is there when the loop looks again, long after the client's time has ended."""
    loop, come = asyncio.get_running_loop(), asyncio.Event()

    async def pieces() -> AsyncIterator[bytes]:
        await come.wait()
        yield b"x"

    def work() -> None:
        end = loop.time() + 0.3
        while loop.time() < end:
            pass
        loop.call_soon(loop.call_soon, come.set)

    loop.call_soon(work)
    assert await Pace(0.2).next(pieces(), 0) == b"x"


async def test_files_that_wait_to_be_loaded_keep_their_places() -> None:
    arriving = Shares(2, ShareTerms(1, seconds=0.05), what="files")
    limits = ImportLimits(PATIENCE, PATIENCE, arriving=arriving)
    payer_var.set(Payer("one"))

    async def nothing() -> AsyncIterator[bytes]:
        return
        yield

    first, second = (Arrival(b"x", nothing(), limits) for _ in range(2))
    async with first.hold_place():
        await first.gather()
        with pytest.raises(ShareExhausted):
            await second.hold_place().__aenter__()
        payer_var.set(Payer("two"))
        async with second.hold_place():
            pass
        payer_var.set(Payer("one"))
    assert arriving.free == 2
    async with second.hold_place():
        assert arriving.free == 1


class Full:
    """A file on a full disk."""

    def __init__(self, number: int) -> None:
        self._number = number

    def write(self, _: Any) -> None:
        raise OSError(self._number, "no room")

    def close(self) -> None:
        raise OSError(self._number, "no room")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_called_that(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: Full(number))
    spool = Spool(SpoolPlace())
    with pytest.raises(StorageFull):
        spool.write(b"x")
    spool.close()


def test_files_lie_in_their_folder_and_leave_the_reserve_free(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[str] = []
    make: Any = tempfile.TemporaryFile

    def record(**given: Any) -> Any:
        asked.append(given["dir"])
        return make(**given)

    monkeypatch.setattr(tempfile, "TemporaryFile", record)
    few = Spool(SpoolPlace(tmp_path))
    few.write(b"abc")
    few.rewind()
    assert few.read() == b"abc" and asked == [str(tmp_path)]
    short = SpoolPlace(tmp_path, 1 << 60)
    in_memory = Spool(short, 10)
    in_memory.write(b"x" * 10)
    with pytest.raises(StorageFull):
        in_memory.write(b"x")
    with pytest.raises(StorageFull):
        Spool(short).write(b"x")


@pytest.fixture(autouse=True)
def _nobody_pays() -> Iterator[None]:
    token = payer_var.set(Payer())
    yield
    payer_var.reset(token)
