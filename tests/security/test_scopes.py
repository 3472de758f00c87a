"""Scopes narrow a token, at the token endpoint and wherever it is used; they never widen it."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

import grpc
import jwt
import pytest

from harness import Reply, RunningHub
from penstock.api.v1 import customers_service_pb2 as api
from penstock.api.v1.customers_service_pb2_grpc import CustomersStub
from penstock.client import Client
from penstock.client.errors import PenstockError


def ask(hub: RunningHub, consumer: str, scope: str | None) -> Reply:
    own = hub.consumers[consumer]
    form = {"grant_type": "client_credentials"}
    form |= {k: own[k] for k in ("client_id", "client_secret")}
    if scope is not None:
        form["scope"] = scope
    headers = {"content-type": "application/x-www-form-urlencoded"}
    return hub.request("POST", "/oauth2/token", body=urlencode(form).encode(), headers=headers)


def headers(hub: RunningHub, consumer: str, scope: str) -> dict[str, str]:
    reply = ask(hub, consumer, scope)
    assert reply.status == 200, reply.text
    return {"authorization": f"Bearer {reply.json()['access_token']}"}


@pytest.mark.parametrize(
    ("consumer", "scope", "granted"),
    [
        ("crm", "customers:read", "customers:read"),
        ("crm", "orders:read customers:read", "customers:read orders:read"),
        ("crm", "customers:read customers:read", "customers:read"),
        ("crm", "customers:*", "customers:*"),
        ("crm", "*:read", "*:read"),
        ("bi", "*:*", "*:*"),
        ("bi", "customers:*", "customers:*"),
        ("admin", "audit.read products:delete", "audit.read products:delete"),
        ("crm", None, None),
        ("crm", "", None),
    ],
)
def test_what_is_granted(
    hub: RunningHub, consumer: str, scope: str | None, granted: str | None
) -> None:
    reply = ask(hub, consumer, scope)
    assert reply.status == 200, reply.text
    assert reply.json().get("scope") == granted
    claims = jwt.decode(reply.json()["access_token"], options={"verify_signature": False})
    assert claims.get("scope") == granted


@pytest.mark.parametrize(
    ("consumer", "scope"),
    [
        ("crm", "nothing:read"),
        ("crm", "products:read"),
        ("crm", "customers:read products:read"),
        ("crm", "customers:export"),
        ("crm", "customers"),
        ("crm", "customers:"),
        ("crm", ":read"),
        ("crm", "*"),
        ("crm", ":"),
        ("crm", " "),
        ("crm", " customers:read"),
        ("crm", "customers:read  orders:read"),
        ("crm", "customers:read\torders:read"),
        ("crm", "Customers:Read"),
        ("crm", "customers:read:orders"),
        ("crm", "audit.read"),
        ("crm", "*.read"),
        ("crm", "openid"),
        ("crm", '"customers:read"'),
        ("crm", "customers:read\x00"),
        ("bi", "customers:create"),
        ("bi", "*:delete"),
        ("admin", "audit.write"),
        ("admin", " ".join(["customers:read"] * 200)),
    ],
)
def test_what_is_not(hub: RunningHub, consumer: str, scope: str) -> None:
    reply = ask(hub, consumer, scope)
    assert (reply.status, reply.json()["error"]) == (400, "invalid_scope")
    assert "access_token" not in reply.json()


def test_unknown_and_out_of_reach_are_not_told_apart(hub: RunningHub) -> None:
    asked = ("nothing:read", "products:read", "audit.read", "nonsense")
    assert len({ask(hub, "crm", scope).body for scope in asked}) == 1


def test_the_client_that_is_wrong_is_not_told_about_scopes(hub: RunningHub) -> None:
    form = {"grant_type": "client_credentials", "client_id": "crm", "client_secret": "x"}
    body = urlencode({**form, "scope": "nothing:read"}).encode()
    kind = {"content-type": "application/x-www-form-urlencoded"}
    reply = hub.request("POST", "/oauth2/token", body=body, headers=kind)
    assert reply.json()["error"] == "invalid_client"


def shown(hub: RunningHub, sent: dict[str, str]) -> dict[str, set[str]]:
    reply = hub.request("GET", "/v1/datasets", headers=sent)
    return {d["name"]: set(d["actions"]) for d in reply.json().get("datasets", [])}


def test_a_narrowed_token_may_what_it_says_and_nothing_else(hub: RunningHub) -> None:
    sent = headers(hub, "crm", "customers:read orders:create")
    for _ in range(4):
        assert shown(hub, sent) == {"customers": {"read"}, "orders": {"create"}}
    for method, path, body, fine in (
        ("GET", "/v1/customers?page_size=1", None, True),
        ("GET", "/v1/customers:export?limit=1", None, True),
        ("GET", "/v1/orders", None, False),
        ("GET", "/v1/contacts", None, False),
        ("POST", "/v1/customers", {"customerId": "scoped"}, False),
        ("PATCH", "/v1/customers/scoped", {"name": "x"}, False),
        ("DELETE", "/v1/customers/scoped", None, False),
        ("POST", "/v1/customers:batchUpsert", {"customers": []}, False),
        ("POST", "/v1/orders:batchUpsert", {"orders": []}, False),
        ("POST", "/v1/customers:import?format=NDJSON", {}, False),
        ("DELETE", "/v1/orders/scoped", None, False),
    ):
        reply = hub.request(method, path, headers=sent, json_body=body)
        assert (reply.status == 200) is fine, f"{method} {path} {reply.text}"
        if not fine:
            assert (reply.status, reply.reason) == (403, "PERMISSION_DENIED")
    with grpc.insecure_channel(f"127.0.0.1:{hub.port}") as channel:
        stub, metadata = CustomersStub(channel), tuple(sent.items())
        stub.ListCustomers(api.ListCustomersRequest(page_size=1), metadata=metadata)
        with pytest.raises(grpc.RpcError) as raised:
            stub.DeleteCustomer(api.DeleteCustomerRequest(customer_id="x"), metadata=metadata)
        refused: Any = raised.value
        assert refused.code() is grpc.StatusCode.PERMISSION_DENIED


def test_stars(hub: RunningHub) -> None:
    everything = shown(hub, headers(hub, "crm", "*:*"))
    assert everything == shown(hub, {"authorization": f"Bearer {hub.token('crm')}"})
    assert shown(hub, headers(hub, "crm", "*:read")) == {d: {"read"} for d in everything}
    only = shown(hub, headers(hub, "crm", "customers:*"))
    assert only == {"customers": everything["customers"]}


def test_a_scope_does_not_widen(hub: RunningHub) -> None:
    sent = headers(hub, "bi", "*:* customers:*")
    assert all(actions == {"read"} for actions in shown(hub, sent).values())
    refused = hub.request("DELETE", "/v1/customers/x", headers=sent)
    assert (refused.status, refused.reason) == (403, "PERMISSION_DENIED")
    rows = hub.request("GET", "/v1/customers?page_size=1000", headers=sent).json()["customers"]
    assert {row["status"] for row in rows} == {"ACTIVE"}, "the row rule holds all the same"
    assert {row.get(name) for row in rows for name in ("creditLimit", "taxId")} == {None}


def test_permissions_on_the_hub(hub: RunningHub) -> None:
    for scope, reads, writes in (
        ("access.read", 200, 403),
        ("audit.read", 403, 403),
        ("*:*", 403, 403),
    ):
        sent = headers(hub, "admin", scope)
        path = "/v1/access/signing-keys"
        assert hub.request("GET", path, headers=sent).status == reads, scope
        rotated = hub.request("POST", f"{path}:rotate", headers=sent, json_body={"now": True})
        assert rotated.status == writes, scope
    assert shown(hub, headers(hub, "admin", "access.read")) == {}


def test_by_the_client_and_the_command_line(hub: RunningHub) -> None:
    own = hub.consumers["crm"]
    credentials: dict[str, Any] = {k: own[k] for k in ("client_id", "client_secret")}
    with Client(hub.url, **credentials, scope="customers:read") as client:
        assert [d.name for d in client.datasets()] == ["customers"]
        with pytest.raises(PenstockError) as refused:
            client.dataset("customers").delete("x")
        assert refused.value.reason == "PERMISSION_DENIED"
    with (
        Client(hub.url, **credentials, scope="nothing:read") as client,
        pytest.raises(PenstockError) as wrong,
    ):
        client.datasets()
    assert wrong.value.reason == "INVALID_SCOPE"
    with pytest.raises(ValueError, match="scope"):
        Client(hub.url, api_key=own["api_key"], scope="customers:read")
    printed = hub.command("token", "--as", "crm", "--scope", "customers:read").stdout.decode()
    claims = jwt.decode(printed.strip(), options={"verify_signature": False})
    assert claims["scope"] == "customers:read"
