"""Server-sent events as browsers know them: names, ids, comments, and connections that break."""

from __future__ import annotations

import itertools
import json
import random
import uuid
from dataclasses import dataclass, field
from typing import Any

import pytest

from chance import SEED
from event_source import EventSource, Parser, SentEvent
from feeds import (
    consumer_with,
    credentials,
    grant,
    here,
    number,
    patch,
    put,
    rest,
    watch,
)
from harness import RunningHub
from places import PLACES

PATH = "/v1/customers:watch"
#: Of customers: whose orders are seen, and whose are not.
STATES = ("ACTIVE", "LEAD")


def key() -> str:
    return f"t-{uuid.uuid4().hex[:12]}"


def customer(customer_id: str, name: str = "Events") -> dict[str, Any]:
    return {"customerId": customer_id, "name": name}


def source(hub: RunningHub, consumer: str = "admin", **query: object) -> EventSource:
    return EventSource(hub, PATH, query, dict(credentials(hub, consumer)))


def place_of(event_id: str) -> int:
    return PLACES.open_start(event_id).number


@dataclass
class Copy:
    """A copy of one field of records from the events of one source.

    ``settled`` are the changes before the last id, which never come again, and ``open`` those after
    it, which may.
    """

    shown: str = "name"
    records: dict[str, str] = field(default_factory=dict)
    settled: set[tuple[str, str]] = field(default_factory=set)
    open: set[tuple[str, str]] = field(default_factory=set)
    repeated: int = 0
    last_id: str = ""

    def take(self, event: SentEvent) -> None:
        """Apply an event."""
        for change in event.data.get("changes", ()):
            assert event.name == "message"
            self._change(change)
        if event.last_id != self.last_id:
            self.last_id = event.last_id
            self.settled |= self.open
            self.open.clear()

    def _change(self, change: dict[str, Any]) -> None:
        place = (change["sequence"], change["key"])
        assert place not in self.settled, f"{place} comes again, though it is before the last id"
        if place in self.open:
            self.repeated += 1
            return
        self.open.add(place)
        if "after" in change:
            self.records[change["key"]] = change["after"][self.shown]
        else:
            self.records.pop(change["key"], None)


# --- the form --------------------------------------------------------------------------------


def test_changes_are_messages_and_everything_else_has_a_name(hub: RunningHub) -> None:
    one = key()
    put(hub, "customers", customer(one))
    events = source(hub, snapshot="true", filter=f'customer_id = "{one}"', heartbeat_seconds=1)
    found: list[SentEvent] = []
    with events.request() as reply:
        assert reply.getheader("content-type") == "text/event-stream"
        assert reply.getheader("x-accel-buffering") == "no"
        assert reply.getheader("cache-control") == "no-cache, no-store"
        parser = Parser()
        while not parser.comments:
            found += parser.feed(reply.read1())
        assert parser.retry == 1000
        assert parser.comments == ["heartbeat"], "nothing has happened"
        put(hub, "customers", customer(f"{one}-other"))
        while found[-1].name != "heartbeat":
            found += parser.feed(reply.read1())
    assert [e.name for e in found] == ["begin", "message", "checkpoint", "heartbeat"]
    for event in found:
        member = "changes" if event.name == "message" else event.name
        assert member in event.data
    begun, snapshot, checkpoint, beat = found
    assert begun.last_id == "", "a snapshot from which nothing came begins again"
    assert snapshot.data["resumeCursor"] == snapshot.last_id
    assert checkpoint.last_id == checkpoint.data["checkpoint"]["cursor"]
    # A change that the stream does not show moves it on all the same.
    assert beat.last_id == beat.data["heartbeat"]["cursor"] != checkpoint.last_id


def test_a_stream_that_was_silent_loses_nothing(hub: RunningHub) -> None:
    """The first event has an id: a client that begins now, and is cut off, goes on from there."""
    one = key()
    events = source(hub, filter=f'customer_id = "{one}"')
    begun = next(events.connect())
    assert (begun.name, begun.last_id) == ("begin", begun.data["begin"]["cursor"])
    put(hub, "customers", customer(one))
    found = next(e for e in events.connect() if e.name == "message")
    assert [c["key"] for c in found.data["changes"]] == [one]


def test_the_last_id_goes_before_cursor_and_snapshot(hub: RunningHub) -> None:
    one, start = key(), here(hub)
    put(hub, "customers", customer(f"{one}-1"))
    between = here(hub)
    put(hub, "customers", customer(f"{one}-2"))
    urls: list[dict[str, str]] = [{"cursor": start}, {"snapshot": "true"}, {}]
    for url in urls:
        events = source(hub, filter=f'customer_id:"{one}*"', heartbeat_seconds=1, **url)
        events.last_id = between
        found = next(e for e in events.connect() if e.name == "message")
        told = [(c["operation"], c["key"]) for c in found.data["changes"]]
        assert told == [("CREATED", f"{one}-2")]


# --- connections that break ------------------------------------------------------------------


def follow(events: EventSource, copy: Copy, most: int | None, head: int) -> bool:
    """Follow one connection until it is cut after some bytes, or everything up to a number has
    arrived; returns whether it has."""
    for event in events.connect(most):
        copy.take(event)
        place = PLACES.open_start(events.last_id) if events.last_id else None
        if place is not None and place.last is None and place.number >= head:
            return True
    return False


@pytest.mark.parametrize("shift", range(3))
def test_a_snapshot_that_is_cut_anywhere_ends_as_the_table(hub: RunningHub, shift: int) -> None:
    """Records change, come and go before and after the place at which the connection is cut."""
    print(f"PENSTOCK_FUZZ_SEED={SEED}")
    chance, prefix = random.Random(SEED + shift), key()
    chosen = f'customer_id:"{prefix}*"'
    keys = [f"{prefix}-{i:03}" for i in range(40)]
    put(hub, "customers", *[customer(k) for k in keys[::2]])
    events = source(hub, snapshot="true", filter=chosen, batch_size=2, heartbeat_seconds=1)
    copy, cuts = Copy(), 0
    while not follow(events, copy, chance.randrange(300, 6000), hub.head()):
        # Without a bound, as much could be written as the next connection brings.
        if events.last_id and PLACES.open_start(events.last_id).last is not None and cuts < 20:
            cuts += 1
            for one in chance.sample(keys, 3):
                if chance.random() < 0.4:
                    hub.request("DELETE", f"/v1/customers/{one}", consumer="admin")
                else:
                    put(hub, "customers", customer(one, f"Name {cuts}"))
    listed = hub.get("/v1/customers", filter=chosen, page_size=100).json()["customers"]
    assert copy.records == {c["customerId"]: c["name"] for c in listed}
    assert cuts, "no connection was cut inside the snapshot"


def test_a_snapshot_through_references_that_is_cut_anywhere_ends_as_the_table(
    hub: RunningHub,
) -> None:
    """One change of a customer brings all its orders into the View, or takes them out."""
    print(f"PENSTOCK_FUZZ_SEED={SEED}")
    chance, prefix = random.Random(SEED), key()
    owners = [f"{prefix}-{i}" for i in range(4)]
    put(hub, "customers", *[customer(k) | {"status": "ACTIVE"} for k in owners])
    orders = [{"orderId": f"{prefix}-{i:03}", "customerId": owners[i % 4]} for i in range(40)]
    put(hub, "orders", *orders)
    chosen = f'order_id:"{prefix}*"'
    with consumer_with(hub, grant("orders", "customer.status = ACTIVE")) as made:
        headers = dict(credentials(hub, made.key))
        query = {"snapshot": "true", "filter": chosen, "batch_size": 2, "heartbeat_seconds": 1}
        events = EventSource(hub, "/v1/orders:watch", query, headers)
        copy, cuts = Copy("customerId"), 0
        while not follow(events, copy, chance.randrange(300, 6000), hub.head()):
            if events.last_id and PLACES.open_start(events.last_id).last is not None and cuts < 12:
                cuts += 1
                patch(hub, "customers", chance.choice(owners), status=chance.choice(STATES))
        assert cuts, "no connection was cut inside the snapshot"
        listed = hub.request(
            "GET", "/v1/orders", headers=headers, query={"filter": chosen, "page_size": 100}
        )
        found = {o["orderId"]: o["customerId"] for o in listed.json()["orders"]}
    assert copy.records == found


def test_a_large_transaction_that_is_cut_anywhere_comes_once(hub: RunningHub) -> None:
    print(f"PENSTOCK_FUZZ_SEED={SEED}")
    chance, prefix, start = random.Random(SEED), key(), here(hub)
    keys = [f"{prefix}-{i:04}" for i in range(3000)]
    put(hub, "customers", customer(f"{prefix}-a"))
    put(hub, "customers", *[customer(k) for k in keys])
    put(hub, "customers", customer(f"{prefix}-z"))
    head = hub.head()
    events = source(hub, cursor=start, batch_size=50, heartbeat_seconds=1)
    copy, inside = Copy(), 0
    while not follow(events, copy, chance.randrange(2_000, 400_000), head):
        if events.last_id:
            inside += number(start) + 1 < place_of(events.last_id) < head - 1
    mine = [k for k in copy.records if k.startswith(prefix)]
    assert sorted(mine) == sorted([*keys, f"{prefix}-a", f"{prefix}-z"])
    assert inside, "no connection was cut inside the transaction"


def test_a_place_in_a_snapshot_serves_streams_of_that_feed_alone(hub: RunningHub) -> None:
    prefix = key()
    put(hub, "customers", *[customer(f"{prefix}-{i}") for i in range(4)])
    chosen = f'customer_id:"{prefix}*"'
    events = source(hub, snapshot="true", filter=chosen, batch_size=1)
    found = [e for e, _ in zip(events.connect(), range(3), strict=False)]
    place = found[-1].last_id
    assert place
    # HEAD says what GET would.
    headers = {**dict(credentials(hub, "admin")), "accept": "text/event-stream"}
    for path, status in ((PATH, 200), ("/v1/orders:watch", 400)):
        asked = hub.request("HEAD", path, headers=headers, query={"cursor": place})
        assert asked.status == status, path
    # Over gRPC it is the same place.
    with watch(hub, dataset="customers", cursor=place, filter=chosen) as stream:
        stream.until(lambda: stream.marks)
        assert [e.brief for e in stream.events] == [("SNAPSHOT", f"{prefix}-{i}") for i in (2, 3)]
        assert stream.begin.cursor == place
    # A poll would leave out the rest of the snapshot.
    refused = hub.get("/v1/customers:changes", cursor=place)
    assert (refused.status, refused.reason) == (400, "CURSOR_INVALID")
    with rest(hub, "/v1/orders:watch", cursor=place) as reply:
        assert (reply.status, json.load(reply)["details"][0]["reason"]) == (400, "CURSOR_INVALID")


def test_a_snapshot_that_goes_on_after_a_long_time_is_not_silent(hub: RunningHub) -> None:
    """Most of the log since then is not for this stream, but each part of it moves the id on."""
    prefix, others = key(), key()
    put(hub, "customers", *[customer(f"{prefix}-{i}") for i in range(3)])
    query = {"snapshot": "true", "filter": f'customer_id:"{prefix}*"', "batch_size": 1}
    events = EventSource(hub, PATH, query, dict(credentials(hub, "admin")))
    next(e for e in events.connect() if e.name == "message")
    for part in range(3):
        put(hub, "customers", *[customer(f"{others}-{part}-{i}") for i in range(1500)])
    places = [place_of(events.last_id)]
    for _ in range(2):  # a proxy cuts the connection each time
        beat = next(e for e in events.connect() if e.name != "begin")
        assert beat.name == "heartbeat"
        assert beat.data["heartbeat"]["cursor"] == beat.data["resumeCursor"] == beat.last_id
        places.append(place_of(events.last_id))
    assert places == sorted(set(places))
    rest_of_it = itertools.takewhile(lambda e: e.name != "checkpoint", events.connect())
    found = [c["key"] for e in rest_of_it for c in e.data.get("changes", ())]
    assert found == [f"{prefix}-1", f"{prefix}-2"]


def test_a_snapshot_that_the_hub_ends_says_where_it_goes_on(hub: RunningHub) -> None:
    """Before the end of a snapshot there is no checkpoint: its cursor would lose the rest."""
    prefix = key()
    with consumer_with(hub, grant("customers")) as made:
        # More than all buffers between hub and client hold.
        for part in range(4):
            keys = [f"{prefix}-{part}-{i:04}" for i in range(4000)]
            put(hub, "customers", *[customer(k, "x" * 500) for k in keys])
        chosen = f'customer_id:"{prefix}*"'
        with watch(
            hub, made.key, dataset="customers", snapshot=True, filter=chosen, batch_size=1
        ) as stream:
            stream.until(lambda: stream.events)
            made.regrant(grant("customers", 'name != "y"'))
            stream.failure()
        assert stream.end is not None and not stream.marks
        place = PLACES.open_start(stream.end.cursor)
        assert place.last == ("customers", stream.events[-1].key)


# --- ends --------------------------------------------------------------------------------------


def test_who_has_lost_access_stops_reconnecting(hub: RunningHub) -> None:
    with consumer_with(hub, grant("customers")) as made:
        events = source(hub, made.key, heartbeat_seconds=1)
        found = [next(connection := events.connect())]
        made.regrant()
        found += connection
        assert (found[-1].name, found[-1].data["end"]["reconcile"]) == ("end", "STOP")
        assert found[-1].last_id, "the last event leaves the last id"
        with events.request() as reply:
            assert (reply.status, reply.read()) == (204, b"")
        # Whoever is no browser that reconnects sees why.
        first = source(hub, made.key)
        with first.request() as reply:
            assert reply.status == 403
            assert json.load(reply)["details"][0]["reason"] == "PERMISSION_DENIED"
        sent = {"last-event-id": events.last_id}
        with rest(hub, PATH, made.key, headers=sent) as reply:
            assert reply.status == 403, "NDJSON"


def test_a_fault_is_told_to_a_client_that_reconnects(hub: RunningHub) -> None:
    """Only what ends for good is hidden behind 204."""
    events = source(hub, filter="no_such = 1")
    events.last_id = here(hub)
    with events.request() as reply:
        assert reply.status == 400
    other = source(hub)
    other.last_id = "nonsense"
    with other.request() as reply:
        assert reply.status == 400


def test_a_subscription_that_was_deleted_stops_its_clients(hub: RunningHub) -> None:
    name = key()
    body = {"subscription": {"subscriptionId": name, "datasets": ["customers"]}}
    made = hub.request("POST", "/v1/subscriptions", consumer="admin", json_body=body)
    assert made.status == 200, made.text
    path = f"/v1/subscriptions/{name}:watch"
    headers = dict(credentials(hub, "admin"))
    events = EventSource(hub, path, {"heartbeat_seconds": 1}, headers)
    connection = events.connect()
    assert next(connection).name == "begin"
    put(hub, "customers", customer(key()))
    lease = next(e for e in connection if e.name == "message")
    assert lease.last_id == lease.data["lease"]["cursor"]
    connection.close()  # type: ignore[attr-defined]  # a generator
    assert hub.request("DELETE", f"/v1/subscriptions/{name}", consumer="admin").status == 200
    with events.request() as reply:
        assert reply.status == 204


def test_a_shape_that_was_deleted_stops_its_clients(hub: RunningHub) -> None:
    shape = {"shapeId": key(), "dataset": "customers"}
    body = {**shape, "columns": [{"name": "n", "field": "name"}]}
    made = hub.request("POST", "/v1/shapes", consumer="admin", json_body=body)
    assert made.status == 200, made.text
    events = source(hub, shape=shape["shapeId"], heartbeat_seconds=1)
    connection = events.connect()
    found = [next(connection)]
    path = f"/v1/shapes/{shape['shapeId']}"
    assert hub.request("DELETE", path, consumer="admin").status == 200
    found += connection
    assert found[-1].data["end"]["reconcile"] == "STOP"
    with events.request() as reply:
        assert reply.status == 204
