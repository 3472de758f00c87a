"""Ways to sign in, through the sidecar: valid credentials work in every way, and others in none."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json

import jwt
import pytest

from harness import PATIENCE, RunningHub

PATH = "/v1/customers?page_size=1"


def basic(name: str, secret: str, spaces: int = 1) -> dict[str, str]:
    text = base64.b64encode(f"{name}:{secret}".encode()).decode()
    return {"authorization": "Basic" + " " * spaces + text}


def ways(hub: RunningHub) -> dict[str, dict[str, str]]:
    known = hub.consumers["crm"]
    key, secret = known["api_key"], known["client_secret"]
    return {
        "token": {"authorization": f"Bearer {hub.token('crm')}"},
        "token after spaces": {"authorization": f"Bearer   {hub.token('crm')}"},
        "key as bearer": {"authorization": f"Bearer {key}"},
        "key": {"x-api-key": key},
        "client by Basic": basic("crm", secret),
        "client by Basic after spaces": basic("crm", secret, 3),
        "key as password": basic("anybody", key),
    }


def test_every_way_signs_in(hub: RunningHub) -> None:
    for way, headers in ways(hub).items():
        reply = hub.request("GET", PATH, headers=headers)
        assert reply.status == 200, (way, reply.text)
        caller = "SELECT consumer_id FROM hub.audit_entry WHERE request_id = $1"
        assert hub.sql(caller, reply.request_id) == [("crm",)], way


def test_a_body_without_a_stated_length_is_taken_from_every_caller(hub: RunningHub) -> None:
    """The sidecar asks the hub about such a caller before it forwards the call."""
    for way, headers in ways(hub).items():
        body = iter([json.dumps({"customers": []}).encode()])
        sent = {**headers, "content-type": "application/json"}
        reply = hub.request("POST", "/v1/customers:batchUpsert", headers=sent, body=body)
        assert reply.status in (200, 400), (way, reply.text)


@pytest.mark.parametrize("page", ["same-site", "cross-site"])
def test_pages_of_others_cannot_use_what_a_browser_keeps(hub: RunningHub, page: str) -> None:
    secret = hub.consumers["crm"]["client_secret"]
    headers = {**basic("crm", secret), "sec-fetch-site": page}
    assert hub.request("GET", PATH, headers=headers).status == 401


def test_a_refusal_names_the_ways(hub: RunningHub) -> None:
    def told(**headers: str) -> str:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", hub.port, timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.request("GET", PATH, headers=sent)
            reply = connection.getresponse()
            assert reply.status == 401
            # One header for each way.
            return "\n".join(reply.headers.get_all("www-authenticate") or ())

    assert "Basic" in told()
    assert "invalid_token" not in told()
    assert 'error="invalid_token"' in told(authorization=f"Bearer {hub.token('crm')[:-4]}")
    assert "Basic" not in told(sec_fetch_mode="cors")


def test_a_failed_sign_in_stands_in_the_audit(hub: RunningHub) -> None:
    for name, headers in (
        ("crm", basic("crm", "wrong")),
        ("nobody-" + "x" * 5000, basic("nobody-" + "x" * 5000, "wrong")),
    ):
        reply = hub.request("GET", PATH, headers=headers)
        assert reply.status == 401
        entry = "SELECT outcome, query, consumer_id FROM hub.audit_entry WHERE request_id = $1"
        ((outcome, query, consumer),) = hub.sql(entry, reply.request_id)
        assert (outcome, consumer) == ("UNAUTHENTICATED", None)
        assert name[:20] in query and "wrong" not in query and len(query) < 1000


def test_a_swapped_secret_never_stands_in_the_audit(hub: RunningHub) -> None:
    secret = hub.consumers["crm"]["client_secret"]
    reply = hub.request("GET", PATH, headers=basic(secret, "crm"))
    entry = "SELECT query FROM hub.audit_entry WHERE request_id = $1"
    ((query,),) = hub.sql(entry, reply.request_id)
    assert secret not in query


def test_tokens_name_their_client(hub: RunningHub) -> None:
    """RFC 9068."""
    claims = jwt.decode(hub.token("crm"), options={"verify_signature": False})
    assert claims["client_id"] == claims["sub"] == "crm"
    assert jwt.get_unverified_header(hub.token("crm"))["typ"] == "at+jwt"


def test_the_issuer_is_where_its_metadata_is(hub: RunningHub) -> None:
    """RFC 8414, 3.3: the two must be the same, and tokens name it."""
    found = hub.request("GET", "/.well-known/oauth-authorization-server").json()
    claims = jwt.decode(hub.token("crm"), options={"verify_signature": False})
    assert found["issuer"] == claims["iss"] == hub.url
    assert found["token_endpoint"] == f"{hub.url}/oauth2/token"
