"""Row rules with claims: each tenant sees and changes only its own records, by its own claims."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from typing import Any

import pytest

from foreign import ForeignIssuer, KeyServer
from harness import Reply, RunningHub, in_force

from .tenants import put_consumer, put_role, remove

Headers = dict[str, str]

RULE = "source = claims.tenant"
RULES = {
    "plain": RULE,
    "not": f"NOT {RULE}",
    "other": "source != claims.tenant",
    "or": f"status = ACTIVE OR {RULE}",
    "list": 'source = (claims.tenant OR "t-c")',
}
SOURCES = ("t-a", "t-b", "t-c")
CUSTOMERS = {f"{source}-{n}": source for source in SOURCES for n in range(3)}
ALL = set(CUSTOMERS)


def of(*sources: str) -> set[str]:
    return {key for key, source in CUSTOMERS.items() if source in sources}


@pytest.fixture(scope="module")
def tenants(hub: RunningHub) -> Iterator[dict[str, Headers]]:
    """Consumers by name, with their headers; their customers and orders exist."""
    record = {"name": "T", "kind": "PERSON", "status": "LEAD"}
    batch = [{**record, "customerId": k, "source": s} for k, s in CUSTOMERS.items()]
    made = hub.request(
        "POST", "/v1/customers:batchUpsert", consumer="admin", json_body={"customers": batch}
    )
    assert made.status == 200, made.text
    contacts = [{"contactId": f"c-{k}", "customerId": k, "givenName": "T"} for k in CUSTOMERS]
    made = hub.request(
        "POST", "/v1/contacts:batchUpsert", consumer="admin", json_body={"contacts": contacts}
    )
    assert made.status == 200, made.text
    through = "customer.source = claims.tenant"
    for name, rule in RULES.items():
        put_role(hub, f"t-{name}", {"customers": rule, "contacts": through})
    headers = {
        "a": put_consumer(hub, "t-a", ["t-plain"], tenant=["t-a"]),
        "b": put_consumer(hub, "t-b", ["t-plain"], tenant=["t-b"]),
        "ab": put_consumer(hub, "t-ab", ["t-plain"], tenant=["t-a", "t-b"]),
        "named": put_consumer(hub, "t-named", ["t-plain"], tenant=["t-a*"]),
    }
    for name in RULES:
        roles = [f"t-{name}"]
        headers[f"none {name}"] = put_consumer(hub, f"t-none-{name}", roles, other=["t-a"])
        headers[f"a {name}"] = put_consumer(hub, f"t-a-{name}", roles, tenant=["t-a"])
    hub.settle()
    yield headers
    consumers = [row[0] for row in hub.sql("SELECT consumer_id FROM hub.consumer")]
    remove(
        hub, *[c for c in consumers if c.startswith("t-")], roles=[f"t-{name}" for name in RULES]
    )
    for dataset, key in (("contacts", "c-{}"), ("customers", "{}")):
        for customer in CUSTOMERS:
            hub.request("DELETE", f"/v1/{dataset}/{key.format(customer)}", consumer="admin")


def get(hub: RunningHub, headers: Headers, path: str, **query: object) -> Reply:
    return hub.request("GET", path, headers=headers, query=query)


def listed(hub: RunningHub, headers: Headers, dataset: str = "customers") -> set[str]:
    key = "customerId"
    mine = " OR ".join(f'customer_id = "{k}"' for k in CUSTOMERS)
    reply = get(hub, headers, f"/v1/{dataset}", filter=mine)
    assert reply.status == 200, reply.text
    return {record[key] for record in reply.json().get(dataset, [])}


def test_each_sees_its_own(hub: RunningHub, tenants: dict[str, Headers]) -> None:
    for name, expected in {
        "a": of("t-a"),
        "b": of("t-b"),
        "ab": of("t-a", "t-b"),
        "a list": of("t-a", "t-c"),
        "a other": of("t-b", "t-c"),
        "a not": of("t-b", "t-c"),
        "a or": of("t-a"),
        "named": set(),
    }.items():
        assert listed(hub, tenants[name]) == expected, name
    for name, expected in {"a": of("t-a"), "ab": of("t-a", "t-b")}.items():
        assert listed(hub, tenants[name], "contacts") == expected, name
    assert listed(hub, {"x-api-key": hub.api_key}) == ALL


@pytest.mark.parametrize("format", ["CSV", "JSON", "NDJSON", "XML"])
def test_exports_too(hub: RunningHub, tenants: dict[str, Headers], format: str) -> None:
    path = "/v1/customers:export"
    for name, expected in {"a": of("t-a"), "ab": of("t-a", "t-b"), "none plain": set()}.items():
        text = get(hub, tenants[name], path, format=format, fields="customer_id").text
        assert {key for key in ALL if key in text} == expected, name
        rest = text
        for key in expected:
            rest = rest.replace(key, "")
        assert not any(source in rest for source in SOURCES)


@pytest.mark.parametrize("name", list(RULES))
def test_without_the_claim_nothing(hub: RunningHub, tenants: dict[str, Headers], name: str) -> None:
    headers = tenants[f"none {name}"]
    assert get(hub, headers, "/v1/customers").json() == {"customers": []}
    assert get(hub, headers, "/v1/contacts").json() == {"contacts": []}
    for key in ALL:
        assert get(hub, headers, f"/v1/customers/{key}").reason == "RECORD_NOT_FOUND"
    count = len(get(hub, headers, "/v1/customers:export", format="CSV").text.splitlines())
    assert count == 1, "the header of a CSV file"
    new = {"customerId": "t-none-new", "name": "T", "source": "t-a"}
    made = hub.request("POST", "/v1/customers", headers=headers, json_body=new)
    assert made.status != 200
    assert hub.sql("SELECT 1 FROM data.customers WHERE customer_id = 't-none-new'") == []


def test_nobody_writes_into_another_tenant(hub: RunningHub, tenants: dict[str, Headers]) -> None:
    headers = tenants["a"]

    def state() -> list[Any]:
        return hub.sql("SELECT * FROM data.customers WHERE source LIKE 't-%' ORDER BY 1")

    before = state()
    new = {"customerId": "t-a-new", "name": "T", "source": "t-b"}
    for method, path, body in (
        ("POST", "/v1/customers", new),
        ("POST", "/v1/customers:batchUpsert", {"customers": [new]}),
        ("POST", "/v1/customers:import?format=NDJSON", new),
        ("PATCH", "/v1/customers/t-a-0", {"source": "t-b"}),
        ("PATCH", "/v1/customers/t-a-0?update_mask=source", {}),
        ("PATCH", "/v1/customers/t-b-0", {"source": "t-a"}),
        ("PATCH", "/v1/customers/t-b-0", {"name": "mine"}),
        ("DELETE", "/v1/customers/t-b-0", None),
        ("POST", "/v1/customers:batchUpsert", {"customers": [{**new, "customerId": "t-b-0"}]}),
        ("POST", "/v1/contacts", {"contactId": "c-new", "customerId": "t-b-0", "givenName": "T"}),
        ("PATCH", "/v1/contacts/c-t-a-0", {"customerId": "t-b-0"}),
    ):
        reply = hub.request(method, path, headers=headers, json_body=body)
        assert reply.status in (400, 403, 404, 409), f"{method} {path} {reply.text}"
        assert state() == before, f"{method} {path}"
    own = {**new, "source": "t-a"}
    for method, path, body in (
        ("POST", "/v1/customers", own),
        ("PATCH", "/v1/customers/t-a-new", {"name": "U"}),
        ("DELETE", "/v1/customers/t-a-new", None),
    ):
        reply = hub.request(method, path, headers=headers, json_body=body)
        assert reply.status == 200, reply.text


def test_claims_of_tokens(hub: RunningHub, tenants: dict[str, Headers]) -> None:
    """Another issuer's token brings the claim through Envoy, as far as the issuer's entry
    allows."""
    issuer = ForeignIssuer()
    issuer.add("k1")

    def seen(key: str, **claims: Any) -> set[str]:
        token = issuer.token(azp=key, **claims)
        return listed(hub, {"authorization": f"Bearer {token}"})

    with KeyServer(issuer).running():
        entry = {
            "issuerId": "claims",
            "issuer": issuer.claims()["iss"],
            "jwksUri": issuer.url,
            "audiences": [issuer.claims()["aud"]],
            "consumerClaim": "azp",
            "consumersByClaim": True,
            "claims": [{"tokenClaim": "org_id", "claim": "tenant"}],
        }
        path = "/v1/access/issuers"
        made = hub.request("POST", path, consumer="admin", json_body=entry)
        assert made.status == 200, made.text
        try:
            in_force(lambda: seen("t-none-plain", org_id="t-a") == of("t-a"))
            for _ in range(4):
                assert seen("t-none-plain", org_id=["t-b", "t-c"]) == of("t-b", "t-c")
                assert seen("t-none-plain") == set()
                assert seen("t-none-plain", org_id=["t-b", {}]) == set()
                assert seen("t-none-plain", org_id="a\x00b") == set()
                assert seen("t-a", org_id="t-b") == of("t-a"), "the consumer's own counts"
            entry["claims"][0]["override"] = True
            body = {"claims": entry["claims"]}
            hub.request("PATCH", f"{path}/claims", consumer="admin", json_body=body)
            in_force(lambda: seen("t-a", org_id="t-b") == of("t-b"))
            assert seen("t-a") == of("t-a")
        finally:
            hub.request("DELETE", f"{path}/claims", consumer="admin")


def test_a_changed_claim_takes_effect_within_five_seconds(
    hub: RunningHub, tenants: dict[str, Headers]
) -> None:
    change = "UPDATE hub.consumer SET claims = $1 WHERE consumer_id = 't-b'"

    def sees(expected: set[str]) -> bool:
        return listed(hub, tenants["b"]) == expected

    assert sees(of("t-b"))
    for values in (["t-c"], [], ["t-b"]):
        hub.sql(change, json.dumps({"tenant": values}))
        in_force(functools.partial(sees, of(*values)))
