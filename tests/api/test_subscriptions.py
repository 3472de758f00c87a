"""Named subscriptions: shared by workers, at least once, in order; and the calls that they
refuse."""

from __future__ import annotations

import contextlib
import http.client
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from harness import PATIENCE, Reply, RunningHub, eventually
from narrowing import narrowed
from penstock.client import Client, PenstockError
from subscribing import Subscribed, keys_of

#: Seconds of a lease that soon ends by itself.
SHORT = 1


def told(reply: Reply) -> tuple[int, str, str]:
    """The details of a refusal, without its request id."""
    return reply.status, reply.reason, reply.json()["message"]


@pytest.mark.parametrize("ordered", [True, False])
def test_workers_share_a_subscription_and_one_that_dies_loses_nothing(
    hub: RunningHub, ordered: bool
) -> None:
    subscribed = Subscribed(hub, ordered=ordered)
    keys = subscribed.write(24)
    # This worker dies while it holds the first changes.
    lost = subscribed.pull(maxChanges=5, ackSeconds=SHORT)
    assert keys_of(lost) == keys[:5]
    processed: list[str] = []
    together = threading.Barrier(3)
    lock = threading.Lock()

    def work() -> None:
        begun = ordered
        while set(processed) < set(keys):
            pulled = subscribed.pull(maxChanges=2, wait="1s")
            with lock:
                processed.extend(keys_of(pulled))
            if not begun:
                begun = True
                assert pulled
                together.wait(PATIENCE)  # each holds some: they work side by side
            if pulled:
                subscribed.acknowledge(pulled)

    with ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(work) for _ in range(3)]:
            done.result()
    assert sorted(set(processed)) == sorted(keys)
    if ordered:
        assert list(dict.fromkeys(processed)) == keys
    found = subscribed.found()
    assert (found.get("leaseCount", 0), found.get("outstandingCount", "0")) == (0, "0")


def test_nothing_is_lost_and_nothing_moves_without_an_acknowledgement(hub: RunningHub) -> None:
    subscribed = Subscribed(hub)
    begin = subscribed.found()["cursor"]
    keys = subscribed.write(3)
    for attempt in range(3):
        pulled = subscribed.pull(ackSeconds=SHORT if attempt < 2 else 3600)
        assert keys_of(pulled) == keys
        assert pulled["lease"].get("attempt", 0) == attempt
        assert subscribed.found()["cursor"] == begin
    assert subscribed.acknowledge(pulled) == pulled["lease"]["cursor"]
    assert subscribed.found()["cursor"] == pulled["lease"]["cursor"]
    assert subscribed.pull(wait="0s") == {}


def test_an_ordered_subscription_lets_others_stand_by(hub: RunningHub) -> None:
    subscribed = Subscribed(hub)
    keys = subscribed.write(4)
    first = subscribed.pull(maxChanges=2)
    assert subscribed.pull(wait="0s") == {}
    with ThreadPoolExecutor(1) as pool:
        standing_by = pool.submit(subscribed.pull)
        subscribed.acknowledge(first)
        second = standing_by.result()
    assert keys_of(first) + keys_of(second) == keys


def test_stretches_beside_each_other_join_before_the_cursor_moves(hub: RunningHub) -> None:
    subscribed = Subscribed(hub, ordered=False)
    begin = subscribed.found()["cursor"]
    keys = subscribed.write(6)
    pulled = [subscribed.pull(maxChanges=2) for _ in range(3)]
    assert [keys_of(p) for p in pulled] == [keys[:2], keys[2:4], keys[4:]]
    assert subscribed.found()["leaseCount"] == 3
    assert subscribed.acknowledge(pulled[1]) == begin
    assert subscribed.acknowledge(pulled[0]) == pulled[1]["lease"]["cursor"]
    assert subscribed.acknowledge(pulled[2]) == pulled[2]["lease"]["cursor"]


def test_a_stretch_that_is_given_again_may_be_given_in_parts(hub: RunningHub) -> None:
    subscribed = Subscribed(hub, ordered=False)
    keys = subscribed.write(5)
    lost = subscribed.pull(maxChanges=4)
    assert keys_of(subscribed.pull(maxChanges=4)) == keys[4:]
    assert subscribed.call("release", leaseId=lost["lease"]["leaseId"]).status == 200
    parts = [subscribed.pull(maxChanges=2) for _ in range(2)]
    assert [keys_of(p) for p in parts] == [keys[:2], keys[2:4]]
    assert [p["lease"]["attempt"] for p in parts] == [1, 1]
    assert subscribed.call("acknowledge", leaseId=lost["lease"]["leaseId"]).reason == (
        "LEASE_EXPIRED"
    )


def test_acknowledgements_that_come_twice_late_or_backwards(hub: RunningHub) -> None:
    subscribed, other = Subscribed(hub), Subscribed(hub)
    keys = subscribed.write(6)
    first = subscribed.pull(maxChanges=2)
    assert subscribed.acknowledge(first) == subscribed.acknowledge(first)
    second = subscribed.pull(maxChanges=2)
    done = subscribed.acknowledge(second)

    backwards = subscribed.call("acknowledge", cursor=first["lease"]["cursor"])
    assert (backwards.status, backwards.reason) == (400, "ACKNOWLEDGED_BACKWARDS")
    assert done in backwards.text
    assert subscribed.call("acknowledge", cursor=done).json() == {"cursor": done}

    late = subscribed.pull(ackSeconds=SHORT)
    again = subscribed.pull()
    assert keys_of(late) == keys_of(again) == keys[4:]
    old = late["lease"]["leaseId"]
    assert subscribed.call("acknowledge", leaseId=old).reason == "LEASE_EXPIRED"
    assert subscribed.call("extend", leaseId=old, ackSeconds=9).reason == "LEASE_EXPIRED"
    end = again["lease"]["cursor"]
    assert subscribed.call("acknowledge", cursor=end).json() == {"cursor": end}
    assert subscribed.call("acknowledge", leaseId=old).reason == "ACKNOWLEDGED_BACKWARDS"

    for lease in (old, "", "x", f"{old[:16]}-999-1", "0" * 16 + "-1-1"):
        foreign = other.call("acknowledge", leaseId=lease)
        assert foreign.reason == ("LEASE_UNKNOWN" if lease else "VALUE_INVALID"), lease
    assert subscribed.call("acknowledge", cursor="x").reason == "CURSOR_INVALID"
    assert other.call("acknowledge", cursor=end).reason == "LEASE_UNKNOWN"


def test_a_lease_can_be_extended_and_given_back(hub: RunningHub) -> None:
    subscribed = Subscribed(hub)
    keys = subscribed.write(1)
    pulled = subscribed.pull(ackSeconds=SHORT)
    lease = pulled["lease"]["leaseId"]
    # If the machine stood still, it may have ended meanwhile.
    while (extended := subscribed.call("extend", leaseId=lease, ackSeconds=600)).status != 200:
        pulled = subscribed.pull(ackSeconds=SHORT)
        lease = pulled["lease"]["leaseId"]
    assert extended.json()["expireTime"] > pulled["lease"]["expireTime"]
    assert subscribed.pull(wait="2s") == {}
    assert subscribed.call("release", leaseId=lease).status == 200
    assert keys_of(subscribed.pull()) == keys


def test_after_a_reset_leases_are_void_and_changes_come_again(hub: RunningHub) -> None:
    subscribed = Subscribed(hub)
    begin = subscribed.found()["cursor"]
    keys = subscribed.write(2)
    pulled = subscribed.pull()
    assert subscribed.call("reset", start=begin).json()["cursor"] == begin
    void = subscribed.call("acknowledge", leaseId=pulled["lease"]["leaseId"])
    assert void.reason == "LEASE_UNKNOWN"
    again = subscribed.pull()
    assert keys_of(again) == keys
    assert subscribed.call("reset", start="garbage").reason == "CURSOR_INVALID"
    assert subscribed.call("reset").status == 200
    assert subscribed.pull(wait="0s") == {}


def test_for_others_a_subscription_does_not_exist(hub: RunningHub) -> None:
    subscribed = Subscribed(hub)
    subscribed.write(1)
    lease = subscribed.pull()["lease"]["leaseId"]
    path = f"/v1/subscriptions/{subscribed.name}"
    calls = [
        ("GET", "", None),
        ("GET", ":watch", None),
        ("DELETE", "", None),
        ("POST", ":pull", {}),
        ("POST", ":reset", {}),
        ("POST", ":acknowledge", {"leaseId": lease}),
        ("POST", ":extend", {"leaseId": lease}),
        ("POST", ":release", {"leaseId": lease}),
    ]
    for verb, method, body in calls:
        foreign = hub.request(verb, path + method, consumer="crm", json_body=body)
        absent = hub.request(
            verb, f"/v1/subscriptions/s-absent{method}", consumer="crm", json_body=body
        )
        assert told(foreign)[:2] == told(absent)[:2] == (404, "SUBSCRIPTION_NOT_FOUND"), method
        assert told(foreign)[2].replace(subscribed.name, "s-absent") == told(absent)[2]
    assert hub.get("/v1/subscriptions", "crm").status == 200
    assert subscribed.name not in hub.get("/v1/subscriptions", "crm").text
    assert subscribed.found()["leaseCount"] == 1


def test_what_cannot_be_a_subscription(hub: RunningHub) -> None:
    def refused(consumer: str = "crm", start: str = "", **terms: Any) -> str:
        body = {"subscription": {"subscriptionId": "s-no", **terms}, "start": start}
        reply = hub.request("POST", "/v1/subscriptions", consumer=consumer, json_body=body)
        assert 400 <= reply.status < 500, reply.text
        return reply.reason

    hidden = refused(datasets=["customers"], filter='tax_id = "1"')
    assert hidden == refused(datasets=["customers"], filter='no_such = "1"') == "FIELD_UNKNOWN"
    assert refused(datasets=["products"]) == refused(datasets=["none"]) == "PERMISSION_DENIED"
    assert refused(datasets=["customers", "orders"], fields="name") == "VALUE_INVALID"
    assert refused(datasets=["customers"], operations=[99]) == "VALUE_INVALID"
    assert refused(subscriptionId="No") == refused(subscriptionId="a" * 64) == "VALUE_INVALID"
    assert refused(datasets=["c" * 200] * 100) == "VALUE_INVALID"
    assert refused(start="garbage") == "CURSOR_INVALID"
    subscribed = Subscribed(hub, "crm")
    assert refused(subscriptionId=subscribed.name) == "SUBSCRIPTION_EXISTS"
    for wrong in ({"maxChanges": 5001}, {"ackSeconds": 3601}, {"wait": "31s"}, {"maxChanges": -1}):
        assert subscribed.call("pull", **wrong).reason == "VALUE_INVALID"
    watch = f"/v1/subscriptions/{subscribed.name}:watch"
    assert hub.get(watch, "crm", max_outstanding=5001).reason == "VALUE_INVALID"


def test_a_consumer_has_a_hundred_at_the_most(hub: RunningHub) -> None:
    subscribed = Subscribed(hub, "bi")
    insert = (
        "INSERT INTO hub.subscription SELECT consumer_id, 'many-' || n, lineage, datasets, filter,"
        " fields, operations, include_before, ordered, position"
        " FROM hub.subscription, generate_series(1, 99) AS n WHERE subscription_id = $1"
    )
    try:
        hub.sql(insert, subscribed.name)
        body = {"subscription": {"subscriptionId": "one-more"}}
        reply = hub.request("POST", "/v1/subscriptions", consumer="bi", json_body=body)
        assert (reply.status, reply.reason) == (429, "TOO_MANY_SUBSCRIPTIONS")
        many = hub.get("/v1/subscriptions", "bi").json()["subscriptions"]
        assert len(many) == 100
        path = "/v1/subscriptions/many-1"
        assert hub.request("DELETE", path, consumer="bi").status == 200
        reply = hub.request("POST", "/v1/subscriptions", consumer="bi", json_body=body)
        assert reply.status == 200, reply.text
    finally:
        hub.sql("DELETE FROM hub.subscription WHERE consumer_id = 'bi'")


def test_the_path_says_which_subscription_whatever_the_query(hub: RunningHub) -> None:
    one, two = Subscribed(hub), Subscribed(hub)
    for name in ("subscription_id", "subscriptionId"):
        reply = hub.get(f"/v1/subscriptions/{one.name}", **{name: two.name})
        assert (reply.status, list(reply.violations())) == (400, [name])


def test_each_pull_shows_what_the_consumer_may_see_then(hub: RunningHub) -> None:
    subscribed = Subscribed(hub, "crm")
    keys = subscribed.write(1, email="seen@example.com")
    first = subscribed.pull(ackSeconds=SHORT)
    assert first["changes"][0]["after"]["email"] == "seen@example.com"
    with narrowed(hub, field_masks=json.dumps({"email": "hide"})):
        again = subscribed.pull(ackSeconds=SHORT)
        assert keys_of(again) == keys
        assert "email" not in again["changes"][0]["after"]
        assert again["view"] != first["view"]
    with narrowed(hub, actions="{create}"):
        denied = subscribed.call("pull")
        assert (denied.status, denied.reason) == (403, "PERMISSION_DENIED")
    assert keys_of(subscribed.pull()) == keys


def test_a_pull_that_waits_does_not_outlive_what_it_may_show(hub: RunningHub) -> None:
    subscribed = Subscribed(hub, "crm")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(subscribed.pull)
        with narrowed(hub, field_masks=json.dumps({"email": "hide"})):
            subscribed.write(1, email="hidden@example.com")
            assert "hidden@" not in json.dumps(waiting.result())


def test_what_was_pulled_is_in_the_audit(hub: RunningHub) -> None:
    subscribed = Subscribed(hub, "crm")
    (key,) = subscribed.write(1)
    subscribed.pull()

    def methods() -> list[str]:
        command = ("audit", "disclosures", "customers", key, "--to", "crm", "--format", "json")
        return [d["method"].rpartition("/")[2] for d in json.loads(hub.command(*command).stdout)]

    assert eventually(methods) == ["PullChanges"]


@contextlib.contextmanager
def watching(subscribed: Subscribed, **query: object) -> Iterator[Iterator[dict[str, Any]]]:
    """The records of a stream as they arrive."""
    hub = subscribed.hub
    connection = http.client.HTTPConnection("127.0.0.1", hub.port, timeout=PATIENCE)
    with contextlib.closing(connection):
        asked = "&".join(f"{name}={value}" for name, value in query.items())
        headers = {"authorization": f"Bearer {hub.token(subscribed.consumer)}"}
        path = f"/v1/subscriptions/{subscribed.name}:watch?heartbeat_seconds=1&{asked}"
        connection.request("GET", path, headers=headers)
        with connection.getresponse() as reply:
            assert reply.status == 200
            yield (json.loads(line) for line in reply if line.strip())


def next_lease(records: Iterator[dict[str, Any]]) -> dict[str, Any]:
    """The next lease, skipping signs of life."""
    while "heartbeat" in (record := next(records)):
        pass
    return record


def test_a_stream_waits_while_enough_is_unacknowledged(hub: RunningHub) -> None:
    subscribed = Subscribed(hub, ordered=False)
    keys = subscribed.write(6)
    with watching(subscribed, max_outstanding=4, max_changes=2, ack_seconds=3600) as records:
        assert "begin" in next(records)
        given = [next_lease(records) for _ in range(2)]
        assert [keys_of(g) for g in given] == [keys[:2], keys[2:4]]
        # More is available and the client would take it; the hub waits.
        assert ["heartbeat" in next(records) for _ in range(2)] == [True, True]
        subscribed.acknowledge(given[1])
        assert keys_of(next_lease(records)) == keys[4:]


def test_a_stream_ends_when_less_may_be_seen(hub: RunningHub) -> None:
    subscribed = Subscribed(hub, "crm")
    with watching(subscribed) as records:
        assert "begin" in next(records)
        with narrowed(hub, field_masks=json.dumps({"email": "hide"})):
            while "end" not in (record := next(records)):
                assert "heartbeat" in record
    assert record["end"]["reason"] == "ACCESS_CHANGED"
    assert record["end"]["reconcile"] == "REPAIR"


def test_a_stream_ends_with_its_subscription(hub: RunningHub) -> None:
    subscribed = Subscribed(hub)
    with watching(subscribed) as records:
        assert "begin" in next(records)
        path = f"/v1/subscriptions/{subscribed.name}"
        assert hub.request("DELETE", path, consumer="admin").status == 200
        end = next_lease(records)["end"]
    assert (end["reason"], end["reconcile"]) == ("SUBSCRIPTION_NOT_FOUND", "STOP")


def test_the_sdk_acknowledges_what_the_loop_has_done(hub: RunningHub) -> None:
    subscribed = Subscribed(hub)
    keys = subscribed.write(4)
    with Client(hub.url, api_key=hub.api_key) as client:
        subscription = client.subscription(subscribed.name)

        def worker(fails: bool) -> list[str]:
            done: list[str] = []
            for batch in subscription.batches(2, ack_seconds=600, follow=False):
                assert all(change.after is not None for change in batch.changes)
                if fails and done:
                    batch.release()
                    raise OSError("the worker's disk is full")
                done += [change.key for change in batch.changes]
            return done

        with pytest.raises(OSError, match="disk is full"):
            worker(fails=True)
        assert worker(fails=False) == keys[2:]
        assert subscription.pull() is None
        subscription.delete()
        with pytest.raises(PenstockError) as raised:
            subscription.get()
        assert raised.value.reason == "SUBSCRIPTION_NOT_FOUND"


def test_from_the_command_line(hub: RunningHub) -> None:
    def penstock(*arguments: str) -> tuple[str, str]:
        done = hub.command("subscriptions", *arguments)
        return done.stdout.decode(), done.stderr.decode()

    other = Subscribed(hub)
    name = f"{other.name}-cli"
    _, said = penstock("create", name, "customers", "--filter", f'name = "{other.mark}"')
    assert said == f"{name}: customers\n"
    try:
        keys = other.write(3)
        out, said = penstock("pull", name, "--max-changes", "2", "--wait", "20")
        assert [json.loads(line)["key"] for line in out.splitlines()] == keys[:2]
        lease = said.split()[1]
        out, _ = penstock("ack", name, lease)
        cursor = out.strip()
        assert cursor in penstock("list")[0]
        out, said = penstock("pull", name, "--ack")
        assert (json.loads(out)["key"], json.loads(out)["after"]["name"]) == (keys[2], other.mark)
        assert said == ""
    finally:
        penstock("delete", name)
