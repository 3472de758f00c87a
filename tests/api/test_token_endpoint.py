"""POST /oauth2/token (RFC 6749), the keys and the metadata that go with it."""

from __future__ import annotations

import base64
import time
from typing import Any
from urllib.parse import quote_plus, urlencode

import jwt
import pytest

from harness import Reply, RunningHub

FORM = "application/x-www-form-urlencoded"


def ask(
    hub: RunningHub, form: dict[str, str] | bytes, *, basic: tuple[str, str] | None = None
) -> Reply:
    body = form if isinstance(form, bytes) else urlencode(form).encode()
    headers = {"content-type": FORM}
    if basic is not None:
        pair = ":".join(quote_plus(part) for part in basic)
        headers["authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
    return hub.request("POST", "/oauth2/token", body=body, headers=headers)


def credentials(hub: RunningHub, consumer: str = "crm") -> dict[str, str]:
    own = hub.consumers[consumer]
    return {
        "grant_type": "client_credentials",
        "client_id": own["client_id"],
        "client_secret": own["client_secret"],
    }


def check_token(hub: RunningHub, reply: Reply, consumer: str) -> None:
    assert reply.status == 200, reply.text
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["cache-control"] == "no-store"
    token = reply.json()
    assert token.keys() == {"access_token", "token_type", "expires_in"}
    assert token["token_type"] == "Bearer"
    assert 0 < token["expires_in"] <= 900
    headers = {"authorization": f"Bearer {token['access_token']}"}
    assert hub.request("GET", "/v1/customers?page_size=1", headers=headers).status == 200
    claims = jwt.decode(token["access_token"], options={"verify_signature": False})
    assert claims["sub"] == consumer


def test_a_token_for_credentials_in_the_form(hub: RunningHub) -> None:
    check_token(hub, ask(hub, credentials(hub)), "crm")


def test_a_token_for_basic_authorization(hub: RunningHub) -> None:
    form = credentials(hub, "bi")
    basic = (form.pop("client_id"), form.pop("client_secret"))
    check_token(hub, ask(hub, form, basic=basic), "bi")


def refused(reply: Reply, status: int, error: str) -> None:
    assert (reply.status, reply.json()["error"]) == (status, error), reply.text
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["cache-control"] == "no-store"
    assert "access_token" not in reply.json()
    assert "x-http-status" not in reply.headers
    challenge = reply.headers.get("www-authenticate")
    assert challenge == ('Basic realm="penstock"' if status == 401 else None)


@pytest.mark.parametrize(
    ("change", "status", "error"),
    [
        ({"grant_type": None}, 400, "invalid_request"),
        ({"grant_type": "password"}, 400, "unsupported_grant_type"),
        ({"grant_type": ""}, 400, "unsupported_grant_type"),
        ({"client_secret": None}, 401, "invalid_client"),
        ({"client_id": None}, 401, "invalid_client"),
        ({"client_id": None, "client_secret": None}, 401, "invalid_client"),
        ({"client_id": "nobody"}, 401, "invalid_client"),
        ({"client_id": "admin"}, 401, "invalid_client"),
        ({"client_secret": "pcs_0123456789abcdef_x"}, 401, "invalid_client"),
        ({"client_secret": "\x00\ud83d" + "x" * 300}, 401, "invalid_client"),
        ({"padding": "x" * 9000}, 400, "invalid_request"),
    ],
    ids=str,
)
def test_what_is_refused(
    hub: RunningHub, change: dict[str, str | None], status: int, error: str
) -> None:
    form = {k: v for k, v in {**credentials(hub), **change}.items() if v is not None}
    body = urlencode(form, errors="surrogatepass").encode()
    refused(ask(hub, body), status, error)


def test_an_api_key_is_no_client_secret_nor_the_other_way_round(hub: RunningHub) -> None:
    own = hub.consumers["crm"]
    refused(ask(hub, {**credentials(hub), "client_secret": own["api_key"]}), 401, "invalid_client")
    headers = {"x-api-key": own["client_secret"]}
    assert hub.request("GET", "/v1/customers", headers=headers).status == 401


def test_which_part_is_wrong_is_not_said(hub: RunningHub) -> None:
    form = credentials(hub)
    wrong = [{**form, "client_id": "x"}, {**form, "client_secret": form["client_secret"] + "x"}]
    assert len({ask(hub, f).body for f in wrong}) == 1


def test_credentials_twice_or_a_form_that_is_none(hub: RunningHub) -> None:
    form = credentials(hub)
    basic = (form["client_id"], form["client_secret"])
    refused(ask(hub, form, basic=basic), 400, "invalid_request")
    twice = urlencode(form) + "&client_id=crm"
    refused(ask(hub, twice.encode()), 400, "invalid_request")
    refused(ask(hub, b'{"grant_type": "client_credentials"}'), 400, "invalid_request")
    refused(ask(hub, b"\xff\xfe=%ff"), 400, "invalid_request")
    refused(ask(hub, b""), 400, "invalid_request")


def test_basic_authorization_that_is_wrong(hub: RunningHub) -> None:
    form = {"grant_type": "client_credentials"}
    refused(ask(hub, form, basic=("crm", "wrong")), 401, "invalid_client")
    for value in ("Basic !!!", "Basic", "Digest x", "Bearer abc"):
        reply = hub.request(
            "POST",
            "/oauth2/token",
            body=urlencode(form).encode(),
            headers={"content-type": FORM, "authorization": value},
        )
        refused(reply, 401, "invalid_client")


def test_the_published_keys_verify_the_tokens(hub: RunningHub) -> None:
    metadata = hub.request("GET", "/.well-known/oauth-authorization-server").json()
    assert metadata["issuer"] == hub.url, "clients compare it with where the document is"
    assert metadata["token_endpoint"] == f"{hub.url}/oauth2/token"
    assert metadata["grant_types_supported"] == ["client_credentials"]
    assert set(metadata["token_endpoint_auth_methods_supported"]) == {
        "client_secret_post",
        "client_secret_basic",
    }
    published = hub.request("GET", metadata["jwks_uri"].removeprefix(hub.url))
    assert published.headers["content-type"] == "application/json"
    assert all("d" not in key for key in published.json()["keys"]), "only public halves"
    keys: Any = jwt.PyJWKSet.from_dict(published.json())
    token = hub.token("admin")
    header = jwt.get_unverified_header(token)
    assert (header["alg"], header["typ"]) == ("ES256", "at+jwt")
    claims = jwt.decode(
        token,
        keys[header["kid"]],
        algorithms=["ES256"],
        issuer=metadata["issuer"],
        audience="penstock",
    )
    assert claims["sub"] == "admin"
    assert claims["exp"] - claims["iat"] <= 900
    assert abs(claims["iat"] - time.time()) < 900
