"""Bad credentials: none is accepted, and all get the same answer."""

from __future__ import annotations

import http.client
import json
from contextlib import closing
from typing import Any

import grpc
import pytest

from harness import PATIENCE, Reply, RunningHub, in_force
from penstock.api.v1 import customers_service_pb2 as api
from penstock.api.v1.customers_service_pb2_grpc import CustomersStub

PATH = "/v1/customers?page_size=1"


def body_without_id(reply: Reply) -> str:
    return reply.text.replace(reply.request_id, "<id>")


def headers_of(reply: Reply) -> dict[str, str]:
    """The headers of a refusal, without those that differ from call to call."""
    changing = ("date", "x-request-id", "x-ratelimit")
    return {k: v for k, v in reply.headers.items() if not k.startswith(changing)}


def raw_headers(hub: RunningHub, headers: list[tuple[str, str]]) -> Reply:
    """A call with exactly these headers, repeated ones included."""
    connection = http.client.HTTPConnection("127.0.0.1", hub.port, timeout=PATIENCE)
    with closing(connection):
        connection.putrequest("GET", PATH)
        for name, value in headers:
            connection.putheader(name, value)
        connection.endheaders()
        reply = connection.getresponse()
        return Reply(reply.status, {k.lower(): v for k, v in reply.getheaders()}, reply.read())


def test_credentials_given_twice_are_none(hub: RunningHub) -> None:
    good = f"Bearer {hub.token('admin')}"
    other = f"Bearer {hub.token('bi')}"
    key = hub.consumers["admin"]["api_key"]
    cases = [
        [("authorization", good), ("authorization", good)],
        [("authorization", good), ("authorization", other)],
        [("authorization", good), ("x-api-key", key)],
        [("authorization", good), ("x-api-key", "wrong")],
        [("authorization", "Bearer wrong"), ("x-api-key", key)],
        [("x-api-key", key), ("x-api-key", key)],
        [("authorization", f"{good},{other[7:]}")],
        [("authorization", f"{good} {other[7:]}")],
        [("authorization", good[7:])],
        [("authorization", f"Basic {good[7:]}")],
        [("x-api-key", good[7:])],
        [("x-api-key", "")],
        [("x-api-key", key[:-1])],
        [("x-api-key", key + "x")],
        [("x-api-key", key.upper())],
        [("x-api-key", key.split("_")[1])],
        [("x-api-key", "psk_" + "x" * 10_000)],
        [("cookie", f"authorization={good}; x-api-key={key}")],
        [("x-forwarded-authorization", good)],
    ]
    missing = raw_headers(hub, [])
    assert missing.status == 401
    for headers in cases:
        reply = raw_headers(hub, headers)
        assert reply.status == 401, headers
        assert body_without_id(reply) == body_without_id(missing), headers
    assert raw_headers(hub, [("authorization", good)]).status == 200
    assert raw_headers(hub, [("X-API-Key", key)]).status == 200
    # A name that some programs would read as x-api-key is refused for that reason.
    assert raw_headers(hub, [("X_API_KEY", key)]).status in (400, 401)
    for query in (f"access_token={good[7:]}", f"api_key={key}", f"x-api-key={key}"):
        assert hub.request("GET", f"{PATH}&{query}").status in (400, 401)


def status(hub: RunningHub, headers: dict[str, str]) -> set[int]:
    """The statuses of a call by REST and one by gRPC."""
    found = {hub.request("GET", PATH, headers=headers).status}
    with grpc.insecure_channel(f"127.0.0.1:{hub.port}") as channel:
        try:
            CustomersStub(channel).ListCustomers(
                api.ListCustomersRequest(page_size=1), metadata=tuple(headers.items())
            )
            found.add(200)
        except grpc.RpcError as error:
            refused: Any = error
            assert refused.code() is grpc.StatusCode.UNAUTHENTICATED
            found.add(401)
    return found


@pytest.mark.parametrize("kind", ["api_key", "client_secret"])
def test_a_revoked_credential_is_refused_within_five_seconds(hub: RunningHub, kind: str) -> None:
    secret = hub.consumers["bi"][kind]
    identifier = secret.split("_")[1]
    headers = {"x-api-key": secret}
    if kind == "client_secret":
        headers = {"authorization": f"Bearer {hub.token('bi')}"}
    revoke = "UPDATE hub.credential SET revoked = $2 WHERE credential_id = $1"
    assert status(hub, headers) == {200}
    try:
        hub.sql(revoke, identifier, True)
        in_force(lambda: status(hub, headers) == {401})
        refused = hub.request("GET", PATH, headers=headers)
        assert body_without_id(refused) == body_without_id(hub.request("GET", PATH))
    finally:
        hub.sql(revoke, identifier, False)
        in_force(lambda: status(hub, headers) == {200})


def test_an_expired_credential_and_an_inactive_consumer(hub: RunningHub) -> None:
    headers = {"x-api-key": hub.consumers["bi"]["api_key"]}
    identifier = headers["x-api-key"].split("_")[1]
    expire = "UPDATE hub.credential SET expire_time ="
    try:
        hub.sql(f"{expire} now() - interval '1s' WHERE credential_id = $1", identifier)
        in_force(lambda: status(hub, headers) == {401})
    finally:
        hub.sql(f"{expire} NULL WHERE credential_id = $1", identifier)
    in_force(lambda: status(hub, headers) == {200})
    try:
        hub.sql("UPDATE hub.consumer SET active = false WHERE consumer_id = 'bi'")
        in_force(lambda: status(hub, headers) == {401})
    finally:
        hub.sql("UPDATE hub.consumer SET active = true WHERE consumer_id = 'bi'")
    in_force(lambda: status(hub, headers) == {200})


def test_a_narrowed_role_takes_effect_within_five_seconds(hub: RunningHub) -> None:
    def seen() -> set[str]:
        return set(hub.get("/v1/customers", "bi", page_size=1).json()["customers"][0])

    old = hub.sql("SELECT field_masks FROM hub.grant WHERE role_id='bi' AND dataset='customers'")
    narrow = "UPDATE hub.grant SET field_masks = $1 WHERE role_id = 'bi' AND dataset = 'customers'"
    assert "name" in seen()
    token = hub.get("/v1/customers", "bi", page_size=1).json()["nextPageToken"]
    try:
        hub.sql(narrow, json.dumps({**json.loads(old[0][0]), "name": "hide"}))
        in_force(lambda: "name" not in seen())
        continued = hub.get("/v1/customers", "bi", page_size=1, page_token=token)
        assert continued.reason == "PAGE_TOKEN_INVALID", "a page of another policy"
    finally:
        hub.sql(narrow, old[0][0])
    in_force(lambda: "name" in seen())
