"""Changes of large records through the hub: no message and no read grows with them."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator

import grpc
import pytest

from feeds import (
    Scene,
    at,
    consumer_with,
    credentials,
    delete,
    grant,
    here,
    lines,
    number,
    patch,
    put,
    rest,
    watch,
)
from harness import PATIENCE, Reply, RunningHub
from penstock.api.v1 import customers_service_pb2 as api
from penstock.api.v1.customers_service_pb2_grpc import CustomersStub
from penstock.hub.v1 import changes_pb2
from penstock.hub.v1.changes_pb2_grpc import ChangesStub
from penstockd.feed.source import FRAME_BYTES
from places import log_number

COUNT = 30
NOTES = "x" * 450_000
#: The largest message that a gRPC client accepts by default.
USUAL_LIMIT = 4 * 1024 * 1024
LOCAL = (("grpc.use_local_subchannel_pool", 1),)
#: 500,000 characters of four bytes each are the largest notes.
LARGEST = "\N{MUSICAL SYMBOL G CLEF}" * 500_000


@pytest.fixture(scope="module")
def large(hub: RunningHub) -> Iterator[tuple[str, int, list[str]]]:
    """One transaction of large records: its start, its end, and its keys."""
    start, prefix = here(hub), f"t-{uuid.uuid4().hex[:12]}"
    keys = [f"{prefix}-{i:02}" for i in range(COUNT)]
    put(hub, "customers", *[{"customerId": k, "name": "Large", "notes": NOTES} for k in keys])
    try:
        yield start, hub.head(), keys
    finally:
        for key in keys:
            delete(hub, "customers", key)


@contextlib.contextmanager
def usual_client(hub: RunningHub) -> Iterator[CustomersStub]:
    """A client with default settings."""
    with grpc.insecure_channel(f"127.0.0.1:{hub.port}", options=LOCAL) as channel:
        yield CustomersStub(channel)


def test_a_stream_of_large_changes(hub: RunningHub, large: tuple[str, int, list[str]]) -> None:
    start, head, keys = large
    sizes = []
    with watch(hub, dataset="customers", cursor=start, include_before=True) as stream:
        while number(stream.cursor) < head:
            sizes.append(stream.read().ByteSize())
    assert [e.key for e in stream.events if e.sequence <= head] == keys
    assert max(sizes) < FRAME_BYTES + 2 * len(NOTES)
    # The transaction has one checkpoint, at its end, in however many stretches it was read.
    assert [c for c, _ in stream.marks if number(c) <= head] == [at(hub, head)]


def test_pages_of_large_changes_fit_into_what_clients_take(
    hub: RunningHub, large: tuple[str, int, list[str]]
) -> None:
    cursor, head, keys = large
    found, sizes = [], []
    with usual_client(hub) as stub:
        while number(cursor) < head:
            request = api.ListCustomerChangesRequest(cursor=cursor, page_size=1000)
            reply = stub.ListCustomerChanges(
                request, metadata=hub.metadata("admin"), timeout=PATIENCE
            )
            assert reply.more or number(reply.next_cursor) >= head
            found += [c.key for c in reply.changes if log_number(c.sequence) <= head]
            sizes.append(reply.ByteSize())
            cursor = reply.next_cursor
    assert found == keys
    assert max(sizes) < USUAL_LIMIT and sum(sizes) > 3 * USUAL_LIMIT


def test_a_snapshot_of_large_records(hub: RunningHub, large: tuple[str, int, list[str]]) -> None:
    _, _, keys = large
    sizes = []
    with watch(hub, dataset="customers", snapshot=True, filter='name = "Large"') as stream:
        while not stream.marks:
            sizes.append(stream.read().ByteSize())
    assert [e.key for e in stream.events] == keys
    assert max(sizes) < FRAME_BYTES + 2 * len(NOTES)


def test_the_largest_change_reaches_every_kind_of_client(hub: RunningHub) -> None:
    start, key = here(hub), f"t-{uuid.uuid4().hex[:12]}"
    try:
        put(hub, "customers", {"customerId": key, "name": "Large", "notes": LARGEST})
        with usual_client(hub) as stub:
            request = api.WatchCustomersRequest(cursor=start, heartbeat_seconds=1)
            call = stub.WatchCustomers(request, metadata=hub.metadata("admin"), timeout=PATIENCE)
            (told,) = next(m.changes for m in call if m.changes)
            assert told.after.notes == LARGEST
            call.cancel()
        with rest(hub, "/v1/customers:watch", cursor=start) as reply:
            (line,) = next(m["changes"] for m in lines(reply) if m.get("changes"))
            assert line["after"]["notes"] == LARGEST
        page = hub.get("/v1/customers:changes", cursor=start).json()
        assert page["changes"][0]["after"]["notes"] == LARGEST
    finally:
        delete(hub, "customers", key)


def test_what_follows_from_a_change_is_told_in_parts(hub: RunningHub) -> None:
    """A customer leaves and re-enters the View, and many large records with it."""
    one = f"t-{uuid.uuid4().hex[:12]}"
    keys = [f"{one}-{i:02}" for i in range(12)]
    talks = [{"interactionId": k, "customerId": one, "body": NOTES} for k in keys]
    expected = [
        *[("LEFT_VIEW", key) for key in (one, *keys)],
        *[("ENTERED_VIEW", key) for key in (one, *keys)],
    ]
    rules = (
        grant("customers", "status = ACTIVE"),
        grant("interactions", "customer.status = ACTIVE"),
    )
    put(hub, "customers", {"customerId": one, "name": "Large", "status": "ACTIVE"})
    put(hub, "interactions", *talks)
    try:
        with consumer_with(hub, *rules) as reader:
            subscription = subscribed(hub, reader.key)
            with Scene(hub, reader.key, include_before=True) as scene:
                patch(hub, "customers", one, status="CHURNED")
                patch(hub, "customers", one, status="ACTIVE")
                events = scene.told()
            assert [e.brief for e in events] == expected
            assert page_sizes(hub, reader.key, scene.start) < USUAL_LIMIT
            found, leases = leased(hub, reader.key, subscription)
            assert found == expected
            assert leases > 4
    finally:
        for key in keys:
            delete(hub, "interactions", key)
        delete(hub, "customers", one)


def page_sizes(hub: RunningHub, consumer: str, cursor: str) -> int:
    """The size of the largest page after a cursor."""
    sizes, head = [], hub.head()
    with grpc.insecure_channel(f"127.0.0.1:{hub.port}", options=LOCAL) as channel:
        stub = ChangesStub(channel)
        while number(cursor) < head:
            request = changes_pb2.ListChangesRequest(cursor=cursor, include_before=True)
            metadata = credentials(hub, consumer)
            reply = stub.ListChanges(request, metadata=metadata, timeout=PATIENCE)
            sizes.append(reply.ByteSize())
            cursor = reply.next_cursor
    return max(sizes)


def posted(hub: RunningHub, consumer: str, path: str, body: object) -> Reply:
    headers = dict(credentials(hub, consumer))
    return hub.request("POST", path, json_body=body, headers=headers)


def subscribed(hub: RunningHub, consumer: str) -> str:
    """Create a subscription to everything that its consumer sees from now on; returns its path."""
    name = f"s-{uuid.uuid4().hex[:12]}"
    asked = {"subscriptionId": name, "datasets": ["customers", "interactions"], "ordered": True}
    body = {"subscription": asked, "start": "now"}
    reply = posted(hub, consumer, "/v1/subscriptions", body)
    assert reply.status == 200, reply.text
    return f"/v1/subscriptions/{name}"


def leased(hub: RunningHub, consumer: str, path: str) -> tuple[list[tuple[str, str]], int]:
    """The changes that a subscription delivers up to now, where every second lease is accepted only
    on its redelivery; and the number of leases."""
    found: list[tuple[str, str]] = []
    head, count, cursor = hub.head(), 0, ""
    while not cursor or number(cursor) < head:
        body = {"wait": "1s", "ackSeconds": 3600, "maxChanges": 5}
        pulled = posted(hub, consumer, f"{path}:pull", body).json()
        if "lease" not in pulled:
            break
        count, lease = count + 1, pulled["lease"]["leaseId"]
        if count % 2:
            given = [change["key"] for change in pulled["changes"]]
            assert posted(hub, consumer, f"{path}:release", {"leaseId": lease}).status == 200
            pulled = posted(hub, consumer, f"{path}:pull", {**body, "maxChanges": 2}).json()
            again = [change["key"] for change in pulled["changes"]]
            assert again == given[: len(again)]
            lease = pulled["lease"]["leaseId"]
        found += [(change["operation"], change["key"]) for change in pulled["changes"]]
        # Both by the cursor and by the lease.
        by = {"leaseId": lease} if count % 3 else {"cursor": pulled["lease"]["cursor"]}
        reply = posted(hub, consumer, f"{path}:acknowledge", by)
        assert reply.status == 200, reply.text
        cursor = reply.json()["cursor"]
    return found, count
