"""What unknown callers leave in the audit: bounded, but every call is counted."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from harness import PATIENCE
from penstockd.audit import refusals
from penstockd.audit.entry import REFUSALS, Entry
from penstockd.audit.refusals import OTHERS, UnknownCallers, network_of
from penstockd.errors import DatabaseUnavailable

MOST = 6


class Books:
    """A journal that keeps entries in a list, unless the database is away."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.away = False

    async def record(self, entry: Entry) -> None:
        await asyncio.sleep(0)
        if self.away:
            raise DatabaseUnavailable("away")
        self.entries.append(entry)

    @property
    def counted(self) -> dict[str, int]:
        """Calls by address."""
        told: dict[str, int] = {}
        for entry in self.entries:
            assert (entry.method, entry.outcome) == (REFUSALS, "RATE_LIMITED")
            assert entry.peer is not None
            calls = json.loads(entry.query or "")["calls"]
            told[entry.peer] = told.get(entry.peer, 0) + calls
        return told


class Bench:
    """UnknownCallers with a clock that the test sets."""

    def __init__(self) -> None:
        self.now, self.books = 1000.0, Books()
        books: Any = self.books
        self.refusals = UnknownCallers(books, MOST, clock=lambda: self.now)

    def allowed(self, number: int, address: str = "192.0.2.1", client: str | None = None) -> int:
        return sum(self.refusals.allow(address, client) for _ in range(number))


def test_an_address_has_so_many_at_once_and_then_so_many_a_minute() -> None:
    bench = Bench()
    assert bench.allowed(100) == MOST
    assert bench.allowed(100, "192.0.2.2") == MOST, "another address"
    bench.now += 60 / MOST
    assert bench.allowed(100) == 1
    bench.now += 59
    assert bench.allowed(100) == MOST - 1
    bench.now += 1000
    assert bench.allowed(100) == MOST, "never more at once"


def test_a_consumer_has_as_many_whatever_the_addresses() -> None:
    bench = Bench()
    assert sum(bench.allowed(1, f"192.0.2.{n}", "crm") for n in range(100)) == MOST
    # Refusals of the consumer do not use up the addresses' share.
    assert bench.allowed(100, "192.0.2.99") == MOST
    assert bench.allowed(100, "192.0.2.100", "bi") == MOST


def test_addresses_are_told_apart_like_in_the_sidecar() -> None:
    assert network_of("192.0.2.1") == "192.0.2.1"
    assert (
        network_of("2001:db8:1:2:3:4:5:6") == network_of("2001:db8:1:2::9") == "2001:db8:1:2::/64"
    )
    assert network_of("unix:") == "(local)"


def test_memory_is_bounded_and_new_addresses_share_what_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(refusals, "MAX_CALLERS", 40)
    bench = Bench()
    allowed = [bench.allowed(1, f"10.0.{n // 250}.{n % 250}") for n in range(1000)]
    assert allowed[:40] == [1] * 40 and sum(allowed) == 40 + MOST
    assert len(bench.refusals._whole) <= 41
    # A known address keeps its own share, and all are forgotten after they have been quiet.
    assert bench.allowed(100, "10.0.0.1") == MOST - 1
    bench.now += 120
    assert bench.allowed(1, "10.9.9.9") == 1
    assert len(bench.refusals._whole) == 1


def test_all_callers_together_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    def allowed_of(addresses: int, bench: Bench) -> int:
        return sum(bench.allowed(1, f"2001:db8:{n:x}::1") for n in range(addresses))

    bench, most = Bench(), MOST * refusals.TOGETHER
    assert allowed_of(1000, bench) == most
    assert bench.allowed(5, "192.0.2.1") == 0, "nothing is left for another"
    assert sum(count.calls for count in bench.refusals._counts.values()) == 1005 - most
    assert len(bench.refusals._counts) <= refusals.MAX_COUNTED + 1
    bench.now += 6
    assert allowed_of(1000, bench) == most // 10
    bench.now += 1000
    assert allowed_of(1000, bench) == most, "never more at once"
    monkeypatch.setattr(refusals, "TOGETHER", 1_000_000)
    assert allowed_of(1000, Bench()) == 1000, "without the bound each has its own"


async def test_every_call_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusals, "TOGETHER", 1000)
    bench = Bench()
    addresses = refusals.MAX_COUNTED + 20
    for number in range(addresses):
        assert bench.allowed(MOST + 3, f"192.0.2.{number}") == MOST
    bench.books.away = True
    with pytest.raises(DatabaseUnavailable):
        await bench.refusals.flush()
    await bench.refusals.close()  # logs that it could not
    bench.allowed(2, "192.0.2.0")
    bench.books.away = False
    await bench.refusals.close()
    told = bench.books.counted
    assert sum(told.values()) == 3 * addresses + 2
    assert (told["192.0.2.0"], told["192.0.2.1"], told[OTHERS]) == (5, 3, 60)
    await bench.refusals.flush()
    assert len(bench.books.entries) == refusals.MAX_COUNTED + 1


async def test_the_first_is_told_at_once_and_a_cancelled_one_is_not_told_twice() -> None:
    bench = Bench()
    follower = asyncio.create_task(bench.refusals.follow(interval=3600))
    bench.allowed(MOST + 1)
    async with asyncio.timeout(PATIENCE):
        while not bench.books.entries:  # noqa: ASYNC110 - the follower announces nothing
            await asyncio.sleep(0)
    bench.allowed(4)
    follower.cancel()
    await asyncio.gather(follower, return_exceptions=True)
    await bench.refusals.close()
    assert bench.books.counted == {"192.0.2.1": 5}
