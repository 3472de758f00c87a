"""Values that would count or compare hidden values: etags, hashes of others, parts of texts."""

from __future__ import annotations

import csv
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from feeds import Made, consumer_with, delete, grant, patch, put
from harness import Reply, RunningHub

HIDING: Any = {"credit_limit": "hide"}


def call(made: Made, verb: str, path: str, body: Any = None, **query: object) -> Reply:
    key = {"x-api-key": made.key.removeprefix("key:")}
    return made.hub.request(verb, path, headers=key, json_body=body, query=query)


def shown(made: Made, key: str) -> dict[str, Any]:
    got = call(made, "GET", f"/v1/customers/{key}")
    assert got.status == 200, got.text
    return dict(got.json())


@pytest.fixture
def customer(hub: RunningHub) -> Iterator[str]:
    key = f"t-counts-{uuid.uuid4().hex[:8]}"
    # The name is its own: other tests leave records on the same hub.
    values = {"customerId": key, "name": f"One {key}", "creditLimit": "1", "source": key}
    put(hub, "customers", values)
    yield key
    if hub.get(f"/v1/customers/{key}").status == 200:
        delete(hub, "customers", key)


def test_an_etag_tells_of_no_hidden_change(hub: RunningHub, customer: str) -> None:
    changing = grant("customers", **HIDING)
    changing["actions"] += ["update", "delete"]
    path, only = f"/v1/customers/{customer}", {"filter": f'source = "{customer}"'}
    with consumer_with(hub, changing) as made:
        first = shown(made, customer)["etag"]
        for limit in ("2", "3"):
            patch(hub, "customers", customer, creditLimit=limit)
            stored = hub.get(path).json()["etag"]
            assert shown(made, customer)["etag"] == first != stored
            listed = call(made, "GET", "/v1/customers", **only).json()["customers"]
            assert [r["etag"] for r in listed] == [first]
            alone = call(made, "GET", path, fields="etag")
            assert alone.json()["etag"] == first
        assert hub.get("/v1/customers", filter=f"etag = {stored}").json()["customers"]
        assert call(made, "GET", "/v1/customers", filter=f"etag = {stored}").json() == {
            "customers": []
        }
        assert call(made, "GET", "/v1/customers", filter=f'etag = "{first}"').json() == {
            "customers": []
        }
        lines = call(made, "GET", "/v1/customers:export", format="NDJSON", **only)
        assert '"etag":null' in lines.text
        refused = call(made, "PATCH", path, {"name": "Two"}, etag=stored)
        assert refused.reason == "ETAG_MISMATCH" and f"'{stored}'" not in refused.text
        body = {"name": "Two", "etag": first}
        second = call(made, "PATCH", path, body)
        assert second.status == 200, second.text
        assert shown(made, customer)["etag"] == second.json()["etag"] != first
        refused = call(made, "PATCH", path, {"name": "Three"}, etag=first)
        assert refused.reason == "ETAG_MISMATCH"
        assert call(made, "DELETE", path, etag=first).reason == "ETAG_MISMATCH"
        patch(hub, "customers", customer, creditLimit="4")
        gone = call(made, "DELETE", path, etag=second.json()["etag"])
        assert gone.status == 200, gone.text


@pytest.mark.parametrize("mask", ["clear", "hash", "partial"])
def test_nor_does_one_under_a_mask(hub: RunningHub, customer: str, mask: str) -> None:
    only = {"filter": f'source = "{customer}"'}
    with consumer_with(hub, grant("customers", **HIDING, etag=mask)) as made:
        hub.head()  # the customer's creation has its number: it comes before the cursor
        cursor = call(made, "GET", "/v1/customers:changes").json()["nextCursor"]

        def told() -> list[Any]:
            hub.head()  # a poll returns a change only after it has its number
            listed = call(made, "GET", "/v1/customers", **only).json()["customers"]
            by_etag = call(made, "GET", "/v1/customers", **only, order_by="etag")
            exported = call(made, "GET", "/v1/customers:export", format="CSV", **only)
            assert by_etag.status == exported.status == 200, by_etag.text
            feed = call(made, "GET", "/v1/customers:changes", cursor=cursor).json()
            etags = [shown(made, customer)["etag"], *(r["etag"] for r in listed)]
            row = dict(zip(*csv.reader(exported.text.splitlines()), strict=True))
            return [*etags, row["etag"], feed.get("changes")]

        first = told()
        assert first[0] and first[2:] == ["", []], "made of what is shown, and else null"
        patch(hub, "customers", customer, creditLimit="9")
        assert told() == first
        patch(hub, "customers", customer, name="Other")
        assert told()[0] != first[0], "it counts what is shown"


def test_who_sees_all_has_the_stored_etag(hub: RunningHub, customer: str) -> None:
    whole = grant("customers")
    whole["actions"].append("update")
    with consumer_with(hub, whole) as made:
        etag = shown(made, customer)["etag"]
        assert etag == hub.get(f"/v1/customers/{customer}").json()["etag"]
        patch(hub, "customers", customer, creditLimit="9")
        refused = call(made, "PATCH", f"/v1/customers/{customer}", {"name": "N"}, etag=etag)
        assert refused.reason == "ETAG_MISMATCH"


def test_hashes_join_within_a_domain_and_nowhere_else(hub: RunningHub, customer: str) -> None:
    hashed: Any = {"name": "hash"}
    own, other = grant("customers", **hashed), grant("customers", **hashed)
    named = {**grant("customers", **hashed), "hashDomain": "partners"}
    with (
        consumer_with(hub, named) as one,
        consumer_with(hub, named) as two,
        consumer_with(hub, own) as three,
        consumer_with(hub, other) as four,
    ):
        roles = [one.name, three.name]
        both = f"t-{uuid.uuid4().hex[:8]}"
        one.administer("POST", "/consumers", {"consumerId": both, "roles": roles})
        issued = one.administer("POST", f"/consumers/{both}/credentials", {"kind": "API_KEY"})
        hub.settle()
        fifth = Made(hub, both, f"key:{issued['secret']}", "")
        hashes = [shown(made, customer)["name"] for made in (one, two, three, four, fifth)]
        found = call(one, "GET", "/v1/customers", filter=f'name = "{hashes[0]}"').json()
        one.administer("DELETE", f"/consumers/{both}")
        role = one.administer("GET", f"/roles/{one.name}")
    assert hashes[0] == hashes[1], "who shares a domain can join"
    assert len(set(hashes)) == 4, "and nobody else can, nor who has two of them"
    assert all(len(h) == 64 for h in hashes)
    assert [r["customerId"] for r in found["customers"]] == [customer]
    assert role["grants"][0]["hashDomain"] == "partners"


def test_a_part_of_a_text_is_shown_of_addresses_alone(hub: RunningHub, customer: str) -> None:
    masks: Any = {"name": "partial", "email": "partial"}
    with consumer_with(hub, grant("customers", **masks)) as made:
        for name, expected in (("Ada", "***"), ("a b@x", "***"), ("x@y@z", "***")):
            patch(hub, "customers", customer, name=name, email="ada@example.com")
            record = shown(made, customer)
            assert (record["name"], record["email"]) == (expected, "a***@example.com")


def test_a_domain_that_is_no_name_is_refused(hub: RunningHub) -> None:
    bad = {**grant("customers"), "hashDomain": "A domain"}
    body = {"roleId": "t-domain", "grants": [bad]}
    refused = hub.request("POST", "/v1/access/roles", consumer="admin", json_body=body)
    assert refused.status == 400
    assert any("hashDomain" in field for field in refused.violations())
