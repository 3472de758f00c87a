"""Issuers other than the hub: added by administrators, trusted by the sidecar, disabled in
seconds."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf import json_format

from foreign import ForeignIssuer, KeyServer
from harness import Reply, RunningHub, duration, in_force, promptly
from penstock.api.v1 import customers_service_pb2 as api
from penstock.api.v1.customers_service_pb2_grpc import CustomersStub
from penstock.hub.v1.issuers_pb2 import Issuer

from .test_tokens import entry

PATH = "/v1/access/issuers"


@pytest.fixture
def issuer(hub: RunningHub) -> Iterator[ForeignIssuer]:
    """An issuer with a key set that the hub does not know yet, and that is removed afterwards."""
    made = ForeignIssuer()
    made.add("k1")
    with KeyServer(made).running():
        yield made
        for found in hub.request("GET", PATH, consumer="admin").json().get("issuers", []):
            hub.request("DELETE", f"{PATH}/{found['issuerId']}", consumer="admin")


def create(hub: RunningHub, given: ForeignIssuer, /, **changed: Any) -> Reply:
    return hub.request("POST", PATH, consumer="admin", json_body=entry(given, **changed))


def update(hub: RunningHub, /, **changed: Any) -> Reply:
    return hub.request("PATCH", f"{PATH}/s1", consumer="admin", json_body=changed)


def call(hub: RunningHub, token: str) -> int:
    headers = {"authorization": f"Bearer {token}"}
    return hub.request("GET", "/v1/customers?page_size=1", headers=headers).status


def by_grpc(hub: RunningHub, token: str) -> str:
    with grpc.insecure_channel(f"127.0.0.1:{hub.port}") as channel:
        try:
            CustomersStub(channel).ListCustomers(
                api.ListCustomersRequest(page_size=1),
                metadata=(("authorization", f"Bearer {token}"),),
            )
        except grpc.RpcError as error:
            refused: Any = error
            return str(refused.code().name)
    return "OK"


def all_answer(hub: RunningHub, token: str, status: int) -> None:
    """Check that within five seconds both workers give this answer, by REST and by gRPC."""
    name = {200: "OK", 401: "UNAUTHENTICATED"}[status]
    in_force(lambda: (call(hub, token), by_grpc(hub, token)) == (status, name))


def test_from_entry_to_deletion(hub: RunningHub, issuer: ForeignIssuer) -> None:
    token = issuer.token()
    assert call(hub, token) == 401
    made = create(hub, issuer)
    assert made.status == 200, made.text
    assert made.json()["active"] is True
    assert made.json()["algorithms"] == ["RS256", "ES256"]
    assert made.json()["tokenTypes"] == ["at+jwt"]
    assert made.json()["maxAgeSeconds"] == 3600
    all_answer(hub, token, 200)
    assert update(hub, active=False).json().get("active") is False
    all_answer(hub, token, 401)
    assert update(hub, active=True).status == 200
    all_answer(hub, token, 200)
    assert hub.request("DELETE", f"{PATH}/s1", consumer="admin").status == 200
    all_answer(hub, token, 401)


def test_its_consumer_decides(hub: RunningHub, issuer: ForeignIssuer) -> None:
    create(hub, issuer, consumerClaim="", consumersByClaim=False, consumerId="bi")
    token = issuer.token(azp="admin")
    all_answer(hub, token, 200)
    headers = {"authorization": f"Bearer {token}"}
    assert hub.request("DELETE", "/v1/customers/x", headers=headers).status == 403
    shown = hub.request("GET", "/v1/customers?page_size=1", headers=headers)
    assert "taxId" not in shown.json()["customers"][0]
    entries = hub.sql(
        "SELECT consumer_id, credential_id FROM hub.audit_entry WHERE request_id = $1",
        shown.request_id,
    )
    assert entries == [("bi", "issuer:s1")]
    try:
        hub.sql("UPDATE hub.consumer SET active = false WHERE consumer_id = 'bi'")
        all_answer(hub, token, 401)
    finally:
        hub.sql("UPDATE hub.consumer SET active = true WHERE consumer_id = 'bi'")
    all_answer(hub, token, 200)


def test_without_consumers_it_speaks_for_nobody(hub: RunningHub, issuer: ForeignIssuer) -> None:
    """Even when the last one is removed: an empty map admits nobody."""
    apps = {"app-1": "bi"}
    create(hub, issuer, consumersByClaim=False, consumers=apps)
    named, other = issuer.token(azp="app-1"), [issuer.token(azp=n) for n in ("crm", "bi", "admin")]
    all_answer(hub, named, 200)
    for token in other:
        all_answer(hub, token, 401)
    emptied = hub.request(
        *("PATCH", f"{PATH}/s1?update_mask=consumers"), consumer="admin", json_body={}
    )
    assert emptied.status == 200, emptied.text
    for token in (named, *other):
        all_answer(hub, token, 401)


def test_a_claim_never_names_who_may_change_access(hub: RunningHub, issuer: ForeignIssuer) -> None:
    """An issuer that may name any consumer would make all its users administrators."""
    create(hub, issuer)
    by_claim, administrator = issuer.token(azp="crm"), issuer.token(azp="admin")
    all_answer(hub, by_claim, 200)
    all_answer(hub, administrator, 401)
    both = update(hub, consumers={"x": "crm"})
    assert (both.status, list(both.violations())) == (400, ["consumersByClaim"])
    # An entry that names the consumer explicitly does admit it.
    assert update(hub, consumersByClaim=True, consumers={}).status == 200
    path = f"{PATH}/s1?update_mask=consumers,consumers_by_claim"
    named = {"consumers": {"admin": "admin"}}
    assert hub.request("PATCH", path, consumer="admin", json_body=named).status == 200
    all_answer(hub, administrator, 200)


def test_scopes_of_its_tokens(hub: RunningHub, issuer: ForeignIssuer) -> None:
    create(hub, issuer, scopeClaim="scp")
    token = issuer.token(scp=["customers:read", "openid"])
    all_answer(hub, token, 200)
    headers = {"authorization": f"Bearer {token}"}
    assert hub.request("DELETE", "/v1/customers/x", headers=headers).status == 403
    wrong: list[dict[str, Any]] = [{}, {"scp": "openid"}, {"scp": ""}, {"scp": {}}]
    for claims in wrong:
        narrowed = {"authorization": f"Bearer {issuer.token(**claims)}"}
        assert hub.request("GET", "/v1/customers", headers=narrowed).status == 403


def test_an_issuer_that_does_not_answer_holds_up_nobody_else(
    hub: RunningHub, issuer: ForeignIssuer
) -> None:
    create(hub, issuer, jwksUri="http://127.0.0.1:9/nothing")

    def refused() -> None:
        for _ in range(10):
            assert call(hub, issuer.token()) == 401

    promptly(10, lambda: duration(refused))
    assert call(hub, hub.token("admin")) == 200


@pytest.mark.parametrize(
    ("field", "values"),
    {
        "issuerId": ["", "A", "a b", "-a", "a" * 64, "ä"],
        "issuer": ["", "penstock", "a\nb", "x" * 3000],
        "jwksUri": ["", "x", "http://example.com/k", "https://u:p@h/", "file:///etc/passwd"],
        "audiences": [[], [""], ["a"] * 101],
        "algorithms": [["none"], ["HS256"], ["rs256"], ["RS256", "HS512"]],
        "tokenTypes": [["a b"], [""], ["x" * 200]],
        "consumerId": ["crm", "nobody"],
        "consumerClaim": [""],
        "consumers": [{"x": "nobody"}],
        "claims": [
            [{"tokenClaim": "", "claim": "a"}],
            [{"tokenClaim": "a", "claim": "A"}],
            [{"tokenClaim": "a", "claim": ""}],
            [{"tokenClaim": "a", "claim": "a"}, {"tokenClaim": "b", "claim": "a"}],
        ],
        "scopeClaim": ["x" * 201],
        "maxAgeSeconds": [1, 59, 3601, -1],
    }.items(),
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_entered(
    hub: RunningHub, issuer: ForeignIssuer, field: str, values: list[Any]
) -> None:
    for value in values:
        reply = create(hub, issuer, **{field: value})
        assert (reply.status, reply.reason) == (400, "VALUE_INVALID"), f"{field} {value}"
        assert reply.violations().keys(), "it names the member"
    assert hub.request("GET", PATH, consumer="admin").json() == {"issuers": []}


def test_conflicts_and_absence(hub: RunningHub, issuer: ForeignIssuer) -> None:
    assert create(hub, issuer).status == 200
    assert create(hub, issuer).reason == "RECORD_EXISTS"
    assert create(hub, issuer, issuerId="s2").reason == "RECORD_EXISTS", "the same iss"
    assert create(hub, issuer, issuerId="s2", issuer="another").status == 200
    assert update(hub, issuer="another").reason == "RECORD_EXISTS"
    for method in ("GET", "PATCH", "DELETE"):
        body = {"title": "x"} if method == "PATCH" else None
        reply = hub.request(method, f"{PATH}/none", consumer="admin", json_body=body)
        assert (reply.status, reply.reason) == (404, "RECORD_NOT_FOUND")
    mask = hub.request(
        "PATCH", f"{PATH}/s1?update_mask=nothing", consumer="admin", json_body={"title": "x"}
    )
    assert mask.status == 400


def test_updates(hub: RunningHub, issuer: ForeignIssuer) -> None:
    create(hub, issuer, claims=[{"tokenClaim": "a", "claim": "a"}], title="Login")
    assert update(hub, title="Other").json()["claims"]
    path = f"{PATH}/s1?update_mask=claims,title"
    cleared = hub.request("PATCH", path, consumer="admin", json_body={}).json()
    assert "claims" not in cleared and "title" not in cleared
    again = update(hub, audiences=["a", "b"]).json()
    assert again["audiences"] == ["a", "b"]
    assert hub.get(f"{PATH}/s1").json() == again


@pytest.mark.parametrize("consumer", ["crm", "bi"])
def test_only_for_administrators(hub: RunningHub, issuer: ForeignIssuer, consumer: str) -> None:
    create(hub, issuer)
    for method, path, body in (
        ("GET", PATH, None),
        ("GET", f"{PATH}/s1", None),
        ("GET", f"{PATH}/none", None),
        ("POST", PATH, entry(issuer, issuerId="mine")),
        ("PATCH", f"{PATH}/s1", {"active": False}),
        ("DELETE", f"{PATH}/s1", None),
        ("GET", "/v1/access/signing-keys", None),
        ("POST", "/v1/access/signing-keys:rotate", {"now": True}),
    ):
        reply = hub.request(method, path, consumer=consumer, json_body=body)
        assert (reply.status, reply.reason) == (403, "PERMISSION_DENIED"), path
    assert call(hub, issuer.token()) == 200


def test_every_change_is_audited(hub: RunningHub, issuer: ForeignIssuer) -> None:
    made, refused = create(hub, issuer), create(hub, issuer)
    for reply, outcome in ((made, "OK"), (refused, "RECORD_EXISTS")):
        rows = hub.sql(
            "SELECT consumer_id, record_key, outcome FROM hub.audit_entry WHERE request_id = $1",
            reply.request_id,
        )
        assert rows == [("admin", "s1", outcome)]


def test_by_the_command_line(hub: RunningHub, issuer: ForeignIssuer) -> None:
    given = {name: value for name, value in entry(issuer).items() if name != "issuerId"}
    made = json.loads(hub.command("issuers", "create", "cli", "--data", json.dumps(given)).stdout)
    named = json_format.ParseDict(given, Issuer(issuer_id="cli", active=True))
    assert (
        made.items() >= json_format.MessageToDict(named, preserving_proto_field_name=True).items()
    )
    changed = hub.command("issuers", "update", "cli", input=b'{"active": false, "title": "T"}')
    assert json.loads(changed.stdout) == {**made, "active": False, "title": "T"}
    hub.command("issuers", "delete", "cli")
    gone = hub.command("issuers", "get", "cli", check=False)
    assert gone.returncode == 1 and b"RECORD_NOT_FOUND" in gone.stderr
