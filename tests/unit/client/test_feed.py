"""Feeds that reconnect by themselves: streams are scripted, and the feed's results are checked."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from harness import PATIENCE, eventually
from penstock.api.v1 import customers_service_pb2 as api
from penstock.client import Batch, Client, Feed, FeedEnded, PenstockError, Position, Replica
from penstock.client import feed as feeds
from penstock.client.replica import RENEWALS
from penstock.client.retry import Backoff
from penstock.hub.v1 import changes_pb2, receipts_pb2
from penstock.model.v1 import customers_pb2

Said = api.WatchCustomersResponse


@pytest.fixture
def client(hub: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.setattr(feeds, "RECONNECT", Backoff(attempts=1 << 62, first=0.01, most=0.01))
    with Client(hub.url, api_key="key-1", timeout=PATIENCE) as client:
        yield client


def begin(cursor: str, view: str = "v1") -> Any:
    return Said(begin=changes_pb2.StreamBegin(cursor=cursor, view=view))


def said(*changes: str, checkpoint: str = "", heartbeat: str = "") -> Any:
    """A message with changes such as "7 a": the sequence and the key."""
    message = Said()
    for change in changes:
        sequence, key = change.split()
        record = customers_pb2.Customer(customer_id=key)
        operation = changes_pb2.UPDATED
        message.changes.add(
            operation=operation, key=key, sequence=int(sequence), transaction_id=1, after=record
        )
    if checkpoint:
        message.checkpoint.cursor = checkpoint
    if heartbeat:
        message.heartbeat.cursor = heartbeat
    return message


def end(*changes: str, reason: str = "", reconcile: str = "RESUME", cursor: str = "") -> Any:
    """The last record of a stream that delivered these changes."""
    lines = [c.split() for c in changes]
    text = "".join(f"{sequence}\tUPDATED\t{key}\n" for sequence, key in lines)
    receipt = receipts_pb2.Receipt(
        receipt_id="r9", row_count=len(lines), sha256=hashlib.sha256(text.encode()).hexdigest()
    )
    return Said(
        end=changes_pb2.StreamEnd(
            reason=reason,
            message="It is over.",
            cursor=cursor,
            reconcile=reconcile,
            receipt=receipt,
        )
    )


def given(batch: Batch) -> list[str]:
    return [f"{change.sequence} {change.key}" for change in batch.changes]


def until(feed: Feed, checkpoint: str) -> list[Batch]:
    """The batches up to a checkpoint."""
    found: list[Batch] = []
    with feed, closing(iter(feed)) as batches:
        for batch in batches:
            found.append(batch)
            if batch.checkpoint == checkpoint:
                return found
    raise AssertionError(f"ended before {checkpoint}: {found}")


def all_given(batches: list[Batch]) -> list[str]:
    return [change for batch in batches for change in given(batch)]


def ended(feed: Feed) -> FeedEnded:
    with pytest.raises(FeedEnded) as caught:
        list(feed)
    return caught.value


# --- going on ---


def test_what_comes_again_after_a_break_within_a_transaction_is_given_once(
    hub: Any, client: Client, refusal: Any
) -> None:
    broken = refusal(grpc.StatusCode.UNAVAILABLE, "down")
    hub.streams = [
        [begin("c0"), said("1 a", checkpoint="c1"), said("2 a", "2 b"), broken],
        # The second stream breaks in the same transaction, and has delivered less of it.
        [begin("c1"), said("2 a"), said(heartbeat="c1"), broken],
        [begin("c1"), said("2 a", "2 b", "2 c"), said("3 a", "3 b", checkpoint="c3")],
    ]
    breaks: list[PenstockError] = []
    feed = client.dataset("customers").watch(filter="f", on_break=breaks.append)
    batches = until(feed, "c3")
    assert all_given(batches) == ["1 a", "2 a", "2 b", "2 c", "3 a", "3 b"]
    assert [b.checkpoint for b in batches] == ["c0", "c1", "", "", "c3"]
    assert [(r.cursor, r.filter, r.snapshot) for r in hub.requests] == [
        ("", "f", False),
        ("c1", "f", False),
        ("c1", "f", False),
    ]
    assert [error.code for error in breaks] == ["UNAVAILABLE"] * 2
    assert feed.position == Position("c3", "v1")


def test_a_kept_position_leaves_out_what_was_given_before_it(hub: Any, client: Client) -> None:
    stream = [begin("c1"), said("2 a", "2 b"), said("3 a", checkpoint="c3")]
    hub.streams = [[begin("c1"), said("2 a")], stream, stream]
    feed = client.dataset("customers").watch(cursor="c1")
    with feed, closing(iter(feed)) as batches:
        next(batches)
        kept = next(batches).position
    assert kept == Position("c1", "v1", 2, frozenset({("customers", "a")}))
    kept = Position.from_json(kept.to_json())
    assert all_given(until(client.dataset("customers").watch(cursor=kept), "c3")) == ["2 b", "3 a"]
    # A cursor alone does not know of it.
    anew = until(client.dataset("customers").watch(cursor="c1"), "c3")
    assert all_given(anew) == ["2 a", "2 b", "3 a"]


def at(message: Any, seconds: int) -> Any:
    """The message with another commit time for its changes."""
    for change in message.changes:
        change.commit_time.FromSeconds(seconds)
    return message


@pytest.mark.parametrize(
    "later",
    [
        [said("2 x", "3 y"), said("4 z", checkpoint="c4")],
        [at(said("2 a", "2 b"), 9), said("4 z", checkpoint="c4")],
        [said("2 a", checkpoint="c2")],
        [said("2 a"), said(heartbeat="c2")],
        [said("3 c", checkpoint="c3")],
        [said("2 b", "2 a"), said("3 c", checkpoint="c3")],
    ],
    ids=["others", "another time", "fewer", "fewer, at rest", "none", "another order"],
)
def test_others_under_the_numbers_of_what_was_given_end_the_feed(
    hub: Any, client: Client, refusal: Any, later: list[Any]
) -> None:
    """The database has returned to a state between the last checkpoint and the changes after it."""
    broken = refusal(grpc.StatusCode.UNAVAILABLE, "down")
    hub.streams = [
        [begin("c0"), said("1 a", checkpoint="c1"), said("2 a", "2 b"), broken],
        [begin("c1"), *later],
    ]
    feed = client.dataset("customers").watch()
    got: list[str] = []
    with pytest.raises(FeedEnded) as raised, feed, closing(iter(feed)) as batches:
        for batch in batches:
            got += given(batch)
    assert got == ["1 a", "2 a", "2 b"]
    assert (raised.value.reason, raised.value.reconcile) == ("CURSOR_INVALID", "REPAIR")
    # The same holds for a stored position; one from an earlier version knows no better.
    assert feed.position is not None
    kept = Position.from_json(json.loads(json.dumps(feed.position.to_json())))
    hub.streams = [[begin("c1"), *later]]
    assert ended(client.dataset("customers").watch(cursor=kept)).reason == "CURSOR_INVALID"


def test_a_snapshot_that_broke_off_begins_anew(hub: Any, client: Client, refusal: Any) -> None:
    broken = refusal(grpc.StatusCode.UNAVAILABLE, "down")
    hub.streams = [
        [begin("c0"), said("5 a", "5 b"), broken],
        [begin("c6"), said("6 a"), said("6 c", checkpoint="c6")],
        [begin("c6"), said("7 a", checkpoint="c7")],
    ]
    batches = until(client.dataset("customers").watch(snapshot=True), "c7")
    found = [(given(b), b.checkpoint, b.begins_anew) for b in batches]
    assert found == [
        ([], "", False),
        (["5 a", "5 b"], "", False),
        ([], "", True),
        (["6 a"], "", False),
        (["6 c"], "c6", False),
        (["7 a"], "c7", False),
    ]
    asked = [(r.cursor, r.snapshot) for r in hub.requests]
    assert asked == [("", True), ("", True), ("c6", False)]


def test_a_sign_of_life_is_a_place_to_go_on(hub: Any, client: Client) -> None:
    hub.streams = [[begin("c0"), said(heartbeat="c0"), said(heartbeat="c4")], [begin("c4")]]
    batches = until(client.dataset("customers").watch(), "c4")
    assert [b.checkpoint for b in batches] == ["c0", "c4"]


@pytest.mark.parametrize("code", ["CANCELLED", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"])
def test_it_goes_on_after_what_passes_however_often(
    hub: Any, client: Client, refusal: Any, code: str
) -> None:
    broken = refusal(grpc.StatusCode[code], "no")
    hub.streams = [[begin("c0"), broken], *[[broken]] * 12, [begin("c0"), said(checkpoint="c1")]]
    breaks: list[PenstockError] = []
    until(client.dataset("customers").watch(on_break=breaks.append), "c1")
    assert [error.code for error in breaks] == [code] * 13


def test_it_ends_by_what_does_not_pass(hub: Any, client: Client, refusal: Any) -> None:
    gone = refusal(grpc.StatusCode.PERMISSION_DENIED, "no", "ACCESS_DENIED")
    hub.streams = [[begin("c0"), said("1 a", checkpoint="c1")], [gone]]
    with pytest.raises(PenstockError, match="no") as caught:
        list(client.dataset("customers").watch())
    assert caught.value.reason == "ACCESS_DENIED"


def test_a_hub_that_starts_is_waited_for(hub: Any, client: Client, refusal: Any) -> None:
    away = [refusal(grpc.StatusCode.INTERNAL, "killed"), refusal(grpc.StatusCode.UNKNOWN, "reset")]
    away += [refusal(grpc.StatusCode.UNAVAILABLE, "none", "HUB_UNAVAILABLE")] * 7
    hub.streams = [[refused] for refused in away] + [[begin("c0"), said("1 a", checkpoint="c1")]]
    breaks: list[PenstockError] = []
    until(client.dataset("customers").watch(on_break=breaks.append), "c1")
    # Six attempts of one call count as one break.
    assert [error.message for error in breaks] == ["killed", "reset", "none"]


def test_a_hub_that_does_not_start_is_told(
    hub: Any, client: Client, refusal: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "START", 0.05)
    hub.streams = [[refusal(grpc.StatusCode.INTERNAL, "down")]] * 999
    with pytest.raises(PenstockError, match="down"):
        list(client.dataset("customers").watch(patience=60))
    hub.streams = [[refusal(grpc.StatusCode.INTERNAL, "down")]] * 999
    with pytest.raises(PenstockError, match="down"):
        list(client.dataset("customers").watch())


# --- how long to wait ---


def test_patience_is_for_a_hub_that_is_away_and_not_for_a_quiet_one(
    hub: Any, client: Client, refusal: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(feeds, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    broken = refusal(grpc.StatusCode.INTERNAL, "down")
    quiet = [begin("c0"), said(checkpoint="c1"), broken]
    hub.streams = [quiet, [broken], quiet, [broken], [broken], quiet]

    def wait(error: PenstockError) -> None:
        clock[0] += 8.0

    feed = client.dataset("customers").watch(patience=10.0, on_break=wait)
    with pytest.raises(PenstockError, match="down"):
        for batch in feed:
            if batch.checkpoint == "c1":
                clock[0] += 1000.0  # as long as the consumer likes, or nothing happens
    # An outage of 8 s was waited out, one of 16 s was not.
    assert hub.streams == [quiet]


def test_a_stream_that_is_silent_is_opened_again(
    hub: Any, client: Client, hold: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "SILENCE", 18.0)
    more = [begin("c0"), said(checkpoint="c1")]
    # A slow machine may be silent for that long, too: then the next stream is used.
    hub.streams = [[begin("c0"), hold], *[more] * 1000]
    feed = client.dataset("customers").watch()
    with feed, closing(iter(feed)) as batches:
        assert next(batches).checkpoint == "c0"
        monkeypatch.setattr(feeds, "SILENCE", 0.2)
        assert next(batches).checkpoint == "c1"
    assert hub.cancelled.wait(PATIENCE)


def test_silence_counts_only_while_a_message_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(feeds, "SILENCE", 0.01)
    cancelled = threading.Event()

    class Call:
        def cancel(self) -> None:
            cancelled.set()

    def stream() -> Iterator[str]:
        yield "a"
        assert cancelled.wait(PATIENCE)
        yield "b"

    watch = feeds.Watchdog()
    watch.opened(Call())
    messages = watch.each(stream())
    assert next(messages) == "a"
    with watch:
        assert not cancelled.wait(0.3), "the consumer was at work"
        assert next(messages) == "b"


# --- what the hub says at the end ---


def test_a_stream_that_is_to_be_resumed_is_and_its_receipt_is_kept(
    hub: Any, client: Client
) -> None:
    last = end("1 a", "2 b", reason="SLOW_CONSUMER", cursor="c1")
    hub.streams = [
        [begin("c0"), said("1 a", checkpoint="c1"), said("2 b"), last],
        [begin("c1"), said("2 b", checkpoint="c2")],
    ]
    breaks: list[PenstockError] = []
    feed = client.dataset("customers").watch(on_break=breaks.append)
    assert all_given(until(feed, "c2")) == ["1 a", "2 b"]
    assert [error.reason for error in breaks] == ["SLOW_CONSUMER"]
    assert [receipt.receipt_id for receipt in feed.receipts] == ["r9"]


@pytest.mark.parametrize("claimed", [(), ("1 a", "1 b"), ("1 b",)])
def test_a_receipt_that_does_not_fit_is_told(
    hub: Any, client: Client, claimed: tuple[str, ...]
) -> None:
    hub.streams = [[begin("c0"), said("1 a", checkpoint="c1"), end(*claimed)]]
    with pytest.raises(PenstockError) as caught:
        list(client.dataset("customers").watch())
    assert (caught.value.code, caught.value.reason) == ("DATA_LOSS", "FEED_INCOMPLETE")
    assert caught.value.metadata == {"receipt": "r9"}


@pytest.mark.parametrize("reconcile", ["REPAIR", "STOP"])
def test_an_end_says_what_to_do(hub: Any, client: Client, refusal: Any, reconcile: str) -> None:
    last = end(reason="ACCESS_CHANGED", reconcile=reconcile, cursor="c0")
    status = refusal(grpc.StatusCode.ABORTED, "It is over.", "ACCESS_CHANGED")
    cut = refusal(grpc.StatusCode.UNAVAILABLE, "the connection broke")
    for behind, request_id in ((status, "req-1"), (cut, "")):
        hub.streams = [[begin("c0"), last, behind]]
        found = ended(client.dataset("customers").watch())
        assert (found.reconcile, found.reason, found.cursor) == (reconcile, "ACCESS_CHANGED", "c0")
        assert found.request_id == request_id
        assert found.message.startswith("It is over.")


def test_an_expired_cursor_needs_a_repair(hub: Any, client: Client, refusal: Any) -> None:
    expired = refusal(grpc.StatusCode.OUT_OF_RANGE, "It is too old.", "CURSOR_EXPIRED", oldest="c7")
    hub.streams, hub.polls = [[expired]], [expired]
    customers = client.dataset("customers")
    found = ended(customers.watch(cursor="c1"))
    assert (found.reconcile, found.reason, found.cursor) == ("REPAIR", "CURSOR_EXPIRED", "c1")
    assert found.metadata["oldest"] == "c7"
    with pytest.raises(FeedEnded) as caught:
        customers.changes("c1")
    assert (caught.value.reconcile, caught.value.cursor) == ("REPAIR", "c1")


def test_a_cursor_that_expires_during_a_break_needs_a_repair(
    hub: Any, client: Client, refusal: Any
) -> None:
    expired = refusal(grpc.StatusCode.OUT_OF_RANGE, "It is too old.", "CURSOR_EXPIRED")
    hub.streams = [[begin("c0"), said(checkpoint="c1")], [expired]]
    found = ended(client.dataset("customers").watch())
    assert (found.reconcile, found.cursor) == ("REPAIR", "c1")


def test_another_view_needs_a_repair(hub: Any, client: Client) -> None:
    hub.streams = [[begin("c1", "v2"), said("2 a", checkpoint="c2")]]
    found = ended(client.dataset("customers").watch(cursor=Position("c1", "v1")))
    assert (found.reconcile, found.reason, found.cursor) == ("REPAIR", "VIEW_CHANGED", "c1")
    # The same while the connection was broken; a feed that begins without a View takes the first
    # one.
    hub.streams = [[begin("c1", "v2"), said(checkpoint="c2")], [begin("c2", "v3")]]
    found = ended(client.dataset("customers").watch(cursor="c1"))
    assert (found.reason, found.cursor) == ("VIEW_CHANGED", "c2")


# --- being closed ---


def closed_meanwhile(feed: Feed, waits: threading.Event, close: Callable[[], None]) -> list[str]:
    """The checkpoints of a feed that another thread closed, after the first and ``waits``."""
    first = threading.Event()

    def work() -> None:
        assert first.wait(PATIENCE) and waits.wait(PATIENCE)
        close()

    found: list[str] = []
    thread = threading.Thread(target=work)
    thread.start()
    try:
        for batch in feed:
            found.append(batch.checkpoint)
            first.set()
    finally:
        first.set()
        thread.join()
    return found


def test_another_thread_closes_it_while_it_waits(hub: Any, client: Client, hold: object) -> None:
    hub.streams = [[begin("c0"), hold]]
    feed = client.dataset("customers").watch()
    assert closed_meanwhile(feed, hub.holding, feed.close) == ["c0"]
    assert hub.cancelled.wait(PATIENCE), "the hub was told"
    assert list(feed) == [], "what is closed stays so"
    assert len(hub.calls) == 1


@pytest.mark.parametrize("pausing", [False, True])
def test_a_signal_closes_it(
    hub: Any,
    client: Client,
    hold: object,
    refusal: Any,
    monkeypatch: pytest.MonkeyPatch,
    pausing: bool,
) -> None:
    # A signal just before a wait for a lock is handled after that wait.
    monkeypatch.setattr(feeds, "RECONNECT", Backoff(attempts=1 << 62, first=0.5, most=0.5))
    broken = threading.Event()
    down = refusal(grpc.StatusCode.INTERNAL, "down")
    hub.streams = [[begin("c0"), down if pausing else hold]] * 1000
    feed = client.dataset("customers").watch(on_break=lambda error: broken.set())
    before = signal.signal(signal.SIGUSR1, lambda number, frame: feed.close())
    try:
        waits = broken if pausing else hub.holding
        found = closed_meanwhile(feed, waits, lambda: os.kill(os.getpid(), signal.SIGUSR1))
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert found == ["c0"]


# --- a replica ---


def test_a_replica_whose_view_changes_during_its_snapshot_begins_anew(
    hub: Any, client: Client, refusal: Any
) -> None:
    broken = refusal(grpc.StatusCode.INTERNAL, "down")
    narrowed = end("5 a", reason="VIEW_CHANGED", reconcile="REPAIR")
    hub.streams = [
        [begin("c0"), said("5 a"), broken],
        [begin("c6", "v2")],
        [begin("c6", "v2"), said("5 a"), narrowed],
        [begin("c7", "v3"), said("7 b", checkpoint="c7")],
    ]
    hub.polls = [api.ListCustomerChangesResponse(next_cursor="c7", view="v3")]
    with closing(sqlite3.connect(":memory:")) as connection:
        replica = Replica(client, "customers", connection)
        replica.sync()
        assert replica.cursor == "c7"
        assert connection.execute("SELECT customer_id FROM customers").fetchall() == [("b",)]


def test_a_replica_whose_view_changes_during_every_snapshot_gives_up(
    hub: Any, client: Client
) -> None:
    narrowed = end("5 a", reason="VIEW_CHANGED", reconcile="REPAIR")
    hub.streams = [[begin("c6", "v2"), said("5 a"), narrowed] for _ in range(2 * RENEWALS)]
    with closing(sqlite3.connect(":memory:")) as connection:
        replica = Replica(client, "customers", connection)
        with pytest.raises(PenstockError) as caught:
            replica.sync()
        assert (caught.value.code, caught.value.reason) == ("ABORTED", "VIEW_CHANGED")
        assert len(hub.streams) == RENEWALS - 1
        # Nothing of the void data is kept, and the feed can begin once the View is stable.
        assert connection.execute("SELECT count(*) FROM customers").fetchall() == [(0,)]
        hub.streams = [[begin("c7", "v3"), said("7 b", checkpoint="c7")]]
        hub.polls = [api.ListCustomerChangesResponse(next_cursor="c7", view="v3")]
        assert replica.sync() == 1


def test_a_replica_whose_view_has_changed_after_every_repair_gives_up(
    hub: Any, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    repairs: list[str] = []
    hub.streams = [[begin("c7", "v3"), said("7 b", checkpoint="c7")]]
    hub.polls = [api.ListCustomerChangesResponse(next_cursor="c8", view="other")] * 2 * RENEWALS
    with closing(sqlite3.connect(":memory:")) as connection:
        replica = Replica(client, "customers", connection)
        monkeypatch.setattr(replica, "repair", lambda: repairs.append(replica.cursor))
        with pytest.raises(PenstockError) as caught:
            replica.sync()
        assert (caught.value.code, caught.value.reason) == ("ABORTED", "VIEW_CHANGED")
        assert repairs == ["c7"] * RENEWALS
        assert connection.execute("SELECT customer_id FROM customers").fetchall() == [("b",)]


def test_a_replica_is_closed_while_it_follows(hub: Any, client: Client, hold: object) -> None:
    hub.streams = [
        [begin("c0"), said("5 a", checkpoint="c5")],
        [begin("c5"), said("6 b", checkpoint="c6"), hold],
    ]
    with closing(sqlite3.connect(":memory:", check_same_thread=False)) as connection:
        replica = Replica(client, "customers", connection)
        written: list[int] = []
        follower = threading.Thread(target=replica.follow, args=(written.append,))
        follower.start()
        eventually(lambda: len(written) == 2)
        replica.close()
        follower.join(PATIENCE)
        assert not follower.is_alive()
        assert (written, replica.cursor) == ([1, 1], "c6")
