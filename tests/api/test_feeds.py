"""Feeds through the hub: the contents of streams and polls, and the requests that they refuse."""

from __future__ import annotations

import base64
import itertools
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from feeds import (
    CATALOG,
    apply,
    at,
    caught_up,
    delete,
    here,
    lines,
    number,
    pages,
    patch,
    put,
    refused,
    rest,
    sse,
    told,
    watch,
)
from harness import RunningHub, eventually
from penstockd.store.cursor import Ahead, Cursor
from penstockd.store.writer import Operation as Written
from places import PLACES, log_number

BIG = 5000


def key() -> str:
    return f"t-{uuid.uuid4().hex[:12]}"


def customer(customer_id: str, **values: Any) -> dict[str, Any]:
    return {"customerId": customer_id, "name": "Feeds", **values}


@pytest.fixture(scope="module")
def big(hub: RunningHub) -> Iterator[tuple[str, int, list[str]]]:
    """One transaction of many rows between two small ones: its start, its end and its keys."""
    start, prefix = here(hub), key()
    keys = [f"{prefix}-{i:05}" for i in range(BIG)]
    put(hub, "customers", customer(f"{prefix}-before"))
    put(hub, "customers", *[customer(k) for k in keys])
    put(hub, "customers", customer(f"{prefix}-after"))
    yield start, hub.head(), keys
    hub.sql("SELECT 1")


# --- what a stream says ----------------------------------------------------------------------


def test_a_transaction_is_never_split_by_a_checkpoint(
    hub: RunningHub, big: tuple[str, int, list[str]]
) -> None:
    start, head, keys = big
    with watch(hub, dataset="customers", cursor=start, batch_size=700) as stream:
        events = [e for e in stream.to(head) if e.sequence <= head]
        marks = [(number(c), count) for c, count in stream.marks]
    assert [e.key for e in events[1:-1]] == keys
    assert len({e.transaction for e in events[1:-1]}) == 1
    assert {1 <= size <= 700 for size in stream.sizes} == {True}
    ends = {e.transaction for e in events}
    for place, count in marks:
        assert place in ends or place == number(start) or place > head
        assert {e.sequence <= place for e in events[:count]} <= {True}
        assert all(e.sequence > place for e in events[count:])


def test_the_ends_of_transactions_are_told(
    hub: RunningHub, big: tuple[str, int, list[str]]
) -> None:
    start, head, _ = big
    with watch(hub, dataset="customers", cursor=start, transaction_boundaries=True) as stream:
        events = [e for e in stream.to(head) if e.sequence <= head]
        ends = [e for e in stream.ends if e[0] <= head]
    assert [count for _, count, _ in ends] == [1, BIG, 1]
    assert [behind for _, _, behind in ends] == [1, BIG + 1, BIG + 2]
    assert [transaction for transaction, _, _ in ends] == [
        t for t, _ in itertools.groupby(e.transaction for e in events)
    ]


def test_a_large_transaction_over_pages(hub: RunningHub, big: tuple[str, int, list[str]]) -> None:
    start, head, keys = big
    found = pages(hub, "admin", "customers", start, head, page_size=600)
    assert [e.key for page in found for e in page][1:-1] == keys
    assert len(found) > 3
    assert max(map(len, found)) == 600


def test_changes_of_what_is_not_seen_are_passed_in_many_pages(
    hub: RunningHub, big: tuple[str, int, list[str]]
) -> None:
    """A page without changes says whether more changes follow."""
    start, head, keys = big
    last = f'customer_id = "{keys[-1]}"'
    found = pages(hub, "admin", "customers", start, head, filter=last)
    assert [e.key for page in found for e in page] == [keys[-1]]
    assert [e.key for e in caught_up(hub, "admin", "customers", start, head, filter=last)] == [
        keys[-1]
    ]


def test_a_snapshot_and_what_follows_make_the_table(hub: RunningHub) -> None:
    prefix = key()
    put(hub, "customers", *[customer(f"{prefix}-{i}") for i in range(5)])
    chosen = f'customer_id:"{prefix}*"'
    with watch(hub, dataset="customers", snapshot=True, filter=chosen, batch_size=2) as stream:
        stream.until(lambda: stream.marks)
        assert [e.brief for e in stream.events] == [("SNAPSHOT", f"{prefix}-{i}") for i in range(5)]
        assert max(stream.sizes) <= 2
        # The cursors from the start, from the checkpoint and from an export at that time are the
        # same.
        assert stream.cursor == stream.begin.cursor
        patch(hub, "customers", f"{prefix}-1", name="Renamed")
        delete(hub, "customers", f"{prefix}-2")
        put(hub, "customers", customer(f"{prefix}-9"))
        stream.to(hub.head())
    replica = apply({}, stream.events)
    wanted = hub.get("/v1/customers", filter=chosen).json()["customers"]
    assert sorted(k for _, k in replica) == sorted(c["customerId"] for c in wanted)
    kind = CATALOG["customers"].message_class
    names = {k: kind.FromString(image).name for (_, k), image in replica.items()}  # type: ignore[attr-defined]
    assert names == {c["customerId"]: c["name"] for c in wanted}


def test_all_datasets_share_one_cursor(hub: RunningHub) -> None:
    one, start = key(), here(hub)
    put(hub, "customers", customer(one))
    put(hub, "orders", {"orderId": one, "customerId": one})
    put(hub, "contacts", {"contactId": one, "customerId": one, "familyName": "F"})
    head = hub.head()
    events = caught_up(hub, "admin", "", start, head)
    assert [(e.operation, e.dataset) for e in events] == [
        ("CREATED", d) for d in ("customers", "orders", "contacts")
    ]
    assert [e.sequence for e in events] == list(range(number(start) + 1, head + 1))
    two = caught_up(hub, "admin", "", start, head, datasets=["contacts", "customers"])
    assert [e.dataset for e in two] == ["customers", "contacts"]
    # A cursor of one is also a cursor of the other.
    (order,) = caught_up(hub, "admin", "orders", at(hub, events[0].sequence), head)
    assert (order.key, order.sequence) == (one, events[1].sequence)


def test_a_silent_stream_says_that_it_lives(hub: RunningHub) -> None:
    one, start = key(), here(hub)
    with watch(hub, dataset="products", cursor=start) as stream:
        stream.until(lambda: stream.heartbeats)
        assert number(stream.heartbeats[-1]) == number(start)
        # Changes that the stream leaves out still move its cursor on, so that it does not expire.
        put(hub, "customers", customer(one))
        assert stream.to(hub.head()) == []


def test_ndjson_and_events_say_the_same_as_grpc(hub: RunningHub) -> None:
    one, start = key(), here(hub)
    put(hub, "customers", customer(one, tags=["a"]))
    patch(hub, "customers", one, name="Renamed")
    delete(hub, "customers", one)
    head = hub.head()
    expected = caught_up(hub, "admin", "customers", start, head)

    def parsed(messages: Iterator[dict[str, Any]]) -> Iterator[Any]:
        for message in messages:
            yield from message.get("changes", [])
            if number(message.get("checkpoint", {}).get("cursor", start)) >= head:
                return

    with rest(hub, "/v1/customers:watch", cursor=start) as reply:
        assert reply.status == 200
        assert reply.getheader("content-type") == "application/x-ndjson"
        first = next(lines(reply))
        assert first["begin"]["cursor"] == start
        assert reply.getheader("penstock-receipt") == first["begin"]["receiptId"]
        by_line = list(parsed(lines(reply)))
    with rest(hub, "/v1/customers:watch", accept="text/event-stream", cursor=start) as reply:
        assert (reply.getheader("content-type") or "").startswith("text/event-stream")
        by_event = list(parsed(message for _, message in sse(reply)))
    assert by_line == by_event
    assert [(c["operation"], c["key"], log_number(int(c["sequence"]))) for c in by_line] == [
        (e.operation, e.key, e.sequence) for e in expected
    ]
    assert by_line[1]["after"]["name"] == "Renamed" and "after" not in by_line[2]


@pytest.mark.parametrize("accept", ["application/x-ndjson", "text/event-stream"])
def test_a_client_that_takes_compressed_replies_gets_changes_at_once(
    hub: RunningHub, accept: str
) -> None:
    """Every HTTP client accepts compression: a codec would hold changes back until it has
    enough."""
    one, start = key(), here(hub)
    sent = {"accept-encoding": "gzip, deflate, br, zstd"}
    with rest(hub, "/v1/customers:watch", accept=accept, headers=sent, cursor=start) as reply:
        assert reply.getheader("content-encoding") is None
        put(hub, "customers", customer(one))
        while one.encode() not in reply.readline():
            pass


def test_an_event_source_goes_on_where_it_was(hub: RunningHub) -> None:
    one, start = key(), here(hub)
    put(hub, "customers", customer(one))
    head = hub.head()
    put(hub, "customers", customer(f"{one}-2"))
    # A client repeats its URL when it reconnects: Last-Event-ID wins over the cursor of the URL.
    for known, wanted, url in (
        (start, one, {}),
        (at(hub, head), f"{one}-2", {"cursor": start}),
        (at(hub, head), f"{one}-2", {"snapshot": "true"}),
    ):
        sent = {"last-event-id": known}
        accept = "text/event-stream"
        with rest(hub, "/v1/customers:watch", accept=accept, headers=sent, **url) as reply:
            assert reply.getheader("x-accel-buffering") == "no"
            messages = (message for _, message in sse(reply))
            changes = next(m["changes"] for m in messages if "changes" in m)
        assert changes[0]["key"] == wanted


def test_a_poll_waits_for_the_first_change(hub: RunningHub) -> None:
    one = key()
    now = hub.get("/v1/customers:changes").json()["nextCursor"]
    nothing = hub.get("/v1/customers:changes", cursor=now, filter=f'customer_id = "{one}"').json()
    assert nothing["changes"] == [] and "more" not in nothing
    found: list[Any] = []
    asked = {"cursor": now, "filter": f'customer_id = "{one}"', "wait": "30s"}

    def poll() -> None:
        while not found:
            found.extend(hub.get("/v1/customers:changes", **asked).json().get("changes", []))

    waiting = threading.Thread(target=poll)
    waiting.start()
    put(hub, "customers", customer(one))
    waiting.join()
    assert [(c["operation"], c["key"]) for c in found] == [("CREATED", one)]


def test_the_fields_of_a_change_are_those_of_the_log(hub: RunningHub) -> None:
    """Compare with the log itself: number, transaction and images, byte for byte."""
    one, start = key(), here(hub)
    put(hub, "customers", customer(one), customer(f"{one}-2"))
    patch(hub, "customers", one, tags=["x", "y"])
    delete(hub, "customers", one)
    head = hub.head()
    events = caught_up(hub, "admin", "", start, head, include_before=True)
    logged = hub.sql(
        "SELECT t.first_number + c.ordinal, t.last_number, c.operation, c.key, c.before, c.after"
        " FROM hub.change AS c JOIN hub.log_transaction AS t USING (revision)"
        " WHERE t.first_number + c.ordinal > $1 ORDER BY 1",
        number(start),
    )
    assert [
        (e.sequence, e.transaction, Written[e.operation].value, e.key, e.before, e.after)
        for e in events
    ] == logged
    assert {"tags", "update_time", "etag"} == set(events[2].changed)


def test_a_receipt_says_what_a_stream_has_given(hub: RunningHub) -> None:
    one, start = key(), here(hub)
    with watch(hub, dataset="customers", cursor=start) as stream:
        put(hub, "customers", customer(one))
        stream.to(hub.head())
        name = stream.begin.receipt_id
    found = eventually(
        lambda: (r := hub.get(f"/v1/receipts/{name}").json()).get("state") == "CANCELLED" and r
    )
    assert (found["rowCount"], found["format"], found["dataset"]) == ("1", "CHANGES", "customers")
    assert found["cursor"] == stream.cursor


# --- what it refuses -------------------------------------------------------------------------


def corrupt(cursor: str) -> Iterator[str]:
    data = bytearray(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    for i in range(len(data)):
        changed = bytes([*data[:i], data[i] ^ 0x40, *data[i + 1 :]])
        yield base64.urlsafe_b64encode(changed).decode().rstrip("=")


def test_cursors_that_were_never_given(hub: RunningHub) -> None:
    good = here(hub)
    invalid = ("INVALID_ARGUMENT", "CURSOR_INVALID")
    bad = ["x", "🐘", "A" * 5000, good + "A", good[:-1], good + "=", f" {good}", *corrupt(good)]
    for text in bad:
        assert refused(hub, cursor=text) == invalid, text
    epoch, head = PLACES.open(good).epoch, number(good)
    assert refused(hub, cursor=PLACES.seal(Cursor("another", head))) == invalid
    assert refused(hub, cursor=PLACES.seal(Cursor(epoch, head + 1000))) == invalid
    assert refused(hub, cursor=PLACES.seal(Cursor(epoch, 2**70))) == invalid
    beyond = Cursor(epoch, 0, (Ahead(2**66, bytes(8)),), mark=bytes(8))
    assert refused(hub, cursor=PLACES.seal(beyond)) == invalid


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"filter": "tax_id = 1"}, "FIELD_UNKNOWN"),
        ({"filter": "no_such = 1"}, "FIELD_UNKNOWN"),
        ({"fields": "tax_id"}, "FIELD_UNKNOWN"),
        ({"fields": "no_such"}, "FIELD_UNKNOWN"),
        ({"filter": "((("}, "FILTER_INVALID"),
        ({"batch_size": -1}, "VALUE_INVALID"),
        ({"batch_size": 5001}, "VALUE_INVALID"),
        ({"page_size": -1}, "VALUE_INVALID"),
        ({"page_size": 5001}, "VALUE_INVALID"),
        ({"heartbeat_seconds": -1}, "VALUE_INVALID"),
        ({"heartbeat_seconds": 16}, "VALUE_INVALID"),
        ({"operations": [99]}, "VALUE_INVALID"),
        ({"operations": [0]}, "VALUE_INVALID"),
        ({"wait": {"seconds": -1}}, "VALUE_INVALID"),
        ({"wait": {"seconds": 31}}, "VALUE_INVALID"),
    ],
)
def test_what_makes_no_sense(hub: RunningHub, options: dict[str, Any], reason: str) -> None:
    code, found = refused(hub, "crm", "customers", **options)
    assert (code, found) == ("INVALID_ARGUMENT", reason)


def test_a_hidden_field_is_refused_like_an_unknown_one(hub: RunningHub) -> None:
    for name in ("filter", "fields"):
        texts = []
        for path in ("tax_id", "xxx_xx"):
            value = f'{path} = "1"' if name == "filter" else path
            for place in ("customers:watch", "customers:changes"):
                reply = hub.request("GET", f"/v1/{place}", consumer="crm", query={name: value})
                assert reply.status == 400
                texts.append(reply.json()["message"].replace(path, "*"))
        assert len(set(texts)) == 1, texts


def test_a_snapshot_begins_where_it_is_taken(hub: RunningHub) -> None:
    found = refused(hub, cursor=here(hub), snapshot=True)
    assert found == ("INVALID_ARGUMENT", "VALUE_INVALID")


def test_datasets_that_one_may_not_read(hub: RunningHub) -> None:
    for names in (["products"], ["customers", "nothing"], [""], ["customers", "products"]):
        assert refused(hub, "crm", "", datasets=names) == ("PERMISSION_DENIED", "PERMISSION_DENIED")
    assert refused(hub, "crm", "products") == ("PERMISSION_DENIED", "PERMISSION_DENIED")


def test_nobody_watches_without_credentials(hub: RunningHub) -> None:
    for path in ("/v1/customers:watch", "/v1/changes:watch", "/v1/customers:changes"):
        assert hub.request("GET", path).status == 401
    with pytest.raises(grpc.RpcError) as raised, watch(hub, "key:wrong", "customers"):
        pass
    error: Any = raised.value
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED


def test_told_is_told_of_every_operation() -> None:
    """The feed's names of operations are the log's."""
    module = __import__("penstock.hub.v1.changes_pb2", fromlist=["Operation"])
    for written in Written:
        change = module.Change(operation=written.value, key="k", dataset="customers")
        change.sequence = PLACES.sequences.sequence(1)
        change.transaction_id = PLACES.sequences.transaction(1)
        assert told(change).operation == written.name
