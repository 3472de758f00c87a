"""How a feed continues after its stream breaks."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from harness import PATIENCE
from penstock.api.v1 import customers_service_pb2 as api
from penstock.client import Client, PenstockError
from penstock.client.feed import RECONNECT, Feed

INTERNAL = grpc.StatusCode.INTERNAL
BEGIN = api.WatchCustomersResponse(begin={"cursor": "c0", "view": "v"})


def change(number: int) -> Any:
    """A change followed by a checkpoint."""
    told = {"operation": 1, "key": f"k{number}", "sequence": number, "transaction_id": number}
    return api.WatchCustomersResponse(changes=[told], checkpoint={"cursor": f"c{number}"})


@pytest.fixture
def client(hub: Any) -> Iterator[Client]:
    with Client(hub.url, api_key="key-1", timeout=PATIENCE) as client:
        yield client


def keys(feed: Feed, count: int) -> list[str]:
    """The keys of the first changes."""
    found: list[str] = []
    for batch in feed:
        found += [one.key for one in batch.changes]
        if len(found) >= count:
            feed.close()
    return found


def test_a_feed_outlives_the_worker_that_served_it(
    hub: Any, client: Client, refusal: type[Any]
) -> None:
    killed = refusal(INTERNAL, "Received RST_STREAM with error code 2")
    hub.streams = [[BEGIN, change(1), killed], [BEGIN, killed], [BEGIN, change(2)]]
    breaks: list[PenstockError] = []
    feed = client.dataset("customers").watch(on_break=breaks.append)
    assert keys(feed, 2) == ["k1", "k2"]
    assert [(e.code, e.reason) for e in breaks] == [("INTERNAL", "")] * 2
    assert [request.cursor for request in hub.requests] == ["", "c1", "c1"]


class Unhurried:
    """Never waits, but records how long it would have."""

    def __init__(self) -> None:
        self.pauses: list[float] = []

    def put(self, item: None) -> None:
        """Nobody waits."""

    def get(self, timeout: float) -> None:
        self.pauses.append(timeout)
        raise queue.Empty


def test_a_defect_of_the_hub_is_met_with_longer_and_longer_pauses(
    hub: Any, client: Client, refusal: type[Any]
) -> None:
    defect = refusal(INTERNAL, "internal error", "INTERNAL")
    hub.streams = [[BEGIN, defect]] * 9 + [[BEGIN, change(1), defect], [BEGIN, change(2)]]
    feed: Any = client.dataset("customers").watch()
    feed.woken = unhurried = Unhurried()
    assert keys(feed, 2) == ["k1", "k2"]
    expected, pause = [], RECONNECT.first
    for _ in range(9):
        expected.append(pause)
        pause = min(2 * pause, RECONNECT.most)
    assert expected[-1] == RECONNECT.most
    # After progress, the next attempt comes at once.
    expected.append(RECONNECT.first)
    for taken, most in zip(unhurried.pauses, expected, strict=True):
        assert most / 2 <= taken <= most


def test_a_defect_at_the_start_is_told(hub: Any, client: Client, refusal: type[Any]) -> None:
    hub.streams = [[refusal(INTERNAL, "internal error", "INTERNAL")]]
    with pytest.raises(PenstockError, match="internal error"):
        next(iter(client.dataset("customers").watch()))
