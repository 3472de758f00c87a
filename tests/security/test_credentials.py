"""Bad credentials: none is accepted, and all get the same answer."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import http.client
import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import asyncpg
import grpc
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from harness import Reply, RunningHub, eventually
from penstock.api.v1 import customers_service_pb2 as api
from penstock.api.v1.customers_service_pb2_grpc import CustomersStub
from penstockd.auth.keys import SigningKeys, load_signing_keys
from penstockd.auth.secret import load_secret
from penstockd.node.postgres import EmbeddedPostgres
from penstockd.node.sockets import sockets_folder

PATH = "/v1/customers?page_size=1"


@pytest.fixture(scope="module")
def keys(hub: RunningHub) -> SigningKeys:
    """The hub's own keys, as whoever steals its folder and its database has them."""
    dsn = EmbeddedPostgres(hub.data, sockets_folder(hub.data)).dsn

    async def read() -> SigningKeys:
        connection = await asyncpg.connect(dsn)
        try:
            secret = load_secret(None, hub.data).derive("signing-key")
            return await load_signing_keys(connection, secret)
        finally:
            await connection.close()

    return asyncio.run(read())


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def part(value: Any) -> str:
    return b64(json.dumps(value).encode())


class Forger:
    """Makes tokens like the hub's, with one thing wrong."""

    def __init__(self, hub: RunningHub, keys: SigningKeys) -> None:
        token = hub.token("admin")
        self.header = jwt.get_unverified_header(token)
        self.claims = jwt.decode(token, options={"verify_signature": False})
        self.keys = keys

    def signed(
        self,
        key: Any = None,
        *,
        header: dict[str, Any] | None = None,
        without: str = "",
        **claims: Any,
    ) -> str:
        """A token that the hub's own key has signed, unless another is given."""
        body = {k: v for k, v in {**self.claims, **claims}.items() if k != without}
        head = {k: v for k, v in {**self.header, **(header or {})}.items() if v is not None}
        return self.sign(key or self.keys.private, part(head), part(body))

    def sign(self, key: Any, head: str, body: str) -> str:
        content = f"{head}.{body}"
        made = jwt.get_algorithm_by_name("ES256").sign(content.encode(), key)
        return f"{content}.{b64(made)}"

    def unsigned(self, algorithm: str, signature: str = "") -> str:
        return f"{part({**self.header, 'alg': algorithm})}.{part(self.claims)}.{signature}"

    def symmetric(self, secret: bytes, bits: int = 256) -> str:
        content = f"{part({**self.header, 'alg': f'HS{bits}'})}.{part(self.claims)}"
        made = hmac.digest(secret, content.encode(), getattr(hashlib, f"sha{bits}"))
        return f"{content}.{b64(made)}"


@pytest.fixture(scope="module")
def forger(hub: RunningHub, keys: SigningKeys) -> Forger:
    return Forger(hub, keys)


def wrong_algorithms(forger: Forger) -> Iterator[tuple[str, str]]:
    """Tokens that ask for another check than the hub's."""
    public = forger.keys.public[forger.header["kid"]]
    encoding, format_ = serialization.Encoding, serialization.PublicFormat
    signature = forger.signed().rpartition(".")[2]
    for algorithm in ("none", "None", "NONE", "nOnE", "", "HS256", "ES384", "RS256", "EdDSA"):
        yield f"alg {algorithm}", forger.unsigned(algorithm)
        yield f"alg {algorithm}, signed", forger.unsigned(algorithm, signature)
    for name, secret in {
        "PEM": public.public_bytes(encoding.PEM, format_.SubjectPublicKeyInfo),
        "DER": public.public_bytes(encoding.DER, format_.SubjectPublicKeyInfo),
        "point": public.public_bytes(encoding.X962, format_.UncompressedPoint),
        "JWKS": forger.keys.jwks,
        "empty": b"",
    }.items():
        for bits in (256, 384, 512):
            yield f"HS{bits} with the public key as {name}", forger.symmetric(secret, bits)
    key = rsa.generate_private_key(65537, 2048)
    content = f"{part({**forger.header, 'alg': 'RS256'})}.{part(forger.claims)}"
    made = jwt.get_algorithm_by_name("RS256").sign(content.encode(), key)
    yield "RS256", f"{content}.{b64(made)}"


def wrong_headers(forger: Forger) -> Iterator[tuple[str, str]]:
    """Tokens whose header points to another key, or says what the hub does not know."""
    stranger = ec.generate_private_key(ec.SECP256R1())
    own = stranger.public_key().public_numbers()
    x, y = (b64(number.to_bytes(32, "big")) for number in (own.x, own.y))
    yield "a stranger's key", forger.signed(stranger)
    for name, value in {
        "jwk": {"kty": "EC", "crv": "P-256", "x": x, "y": y},
        "jku": "http://127.0.0.1:9/jwks.json",
        "x5u": "http://127.0.0.1:9/x.pem",
        "x5c": ["MIIB"],
    }.items():
        yield f"{name} of a stranger", forger.signed(stranger, header={name: value})
        yield name, forger.signed(header={name: value})
    for kid in ("", "../../../../dev/null", "' OR 1=1 --", "unknown", 7, ["x"], {"a": 1}):
        yield f"kid {kid} of a stranger", forger.signed(stranger, header={"kid": kid})
        yield f"kid {kid}", forger.signed(header={"kid": kid})
    yield "no kid", forger.signed(header={"kid": None})
    for typ in ("JWT", "", None, "at+JWT", "jwt", 7):
        yield f"typ {typ!r}", forger.signed(header={"typ": typ})
    yield "crit", forger.signed(header={"crit": ["exp"]})
    yield "b64", forger.signed(header={"b64": False, "crit": ["b64"]})
    yield "zip", forger.signed(header={"zip": "DEF"})
    yield "enc", forger.signed(header={"enc": "A256GCM"})
    body = part(forger.claims)
    twice = b64(json.dumps(forger.header)[:-1].encode() + b', "alg": "none"}')
    yield "alg twice", forger.sign(forger.keys.private, twice, body)
    yield "header is a list", forger.sign(forger.keys.private, part([]), body)
    yield "header is no JSON", forger.sign(forger.keys.private, b64(b"\xff"), body)


def wrong_claims(forger: Forger) -> Iterator[tuple[str, str]]:
    """Tokens that the hub's own key has signed, and whose claims are bad."""
    now = int(time.time())
    wrong: dict[str, list[Any]] = {
        "exp": [now - 1, 0, -1, str(now + 600), now + 600.5, math.nan, math.inf, None, True, [now]],
        "nbf": [now + 1000],
        "iat": [now + 1000],
        "iss": ["another", "", None, 7, ["penstock"], "penstock "],
        "aud": ["another", "", None, 7, ["another"], [], ["penstock", "another"]],
        "sub": ["nobody", "", None, 7, ["admin"], "crm"],
        "cid": ["nothing", "", None, 7],
    }
    for claim, values in wrong.items():
        for value in values:
            yield f"{claim} {value!r}", forger.signed(**{claim: value})
    for claim in ("exp", "iat", "sub", "iss", "aud", "cid"):
        yield f"no {claim}", forger.signed(without=claim)
    head = part(forger.header)
    yield "claims are a list", forger.sign(forger.keys.private, head, part([1]))
    yield "claims are no JSON", forger.sign(forger.keys.private, head, b64(b"{"))
    yield "long", forger.signed(padding="x" * 20_000)


def broken(forger: Forger) -> Iterator[tuple[str, str]]:
    """A good token with its parts changed, and what is no token at all."""
    good = forger.signed()
    head, body, signature = good.split(".")
    flipped = "B" if signature[9] != "B" else "C"
    yield "five parts", f"{good}.{signature}.{signature}"
    yield "four parts", f"{good}."
    yield "two parts", f"{head}.{body}"
    yield "no signature", f"{head}.{body}."
    yield "signature changed", f"{head}.{body}.{signature[:9]}{flipped}{signature[10:]}"
    yield "signature cut", good[:-4]
    yield "signature of zeros", f"{head}.{body}.{b64(bytes(64))}"
    yield "claims changed", f"{head}.{part({**forger.claims, 'sub': 'crm'})}.{signature}"
    yield "padded", f"{good}="
    for text in ("", ".", "..", "...", "null", "abc", "a.b.c", "%00", "é", "Bearer " + good):
        yield f"text {text[:20]!r}", text


def bad_tokens(forger: Forger) -> Iterator[tuple[str, str]]:
    """What is wrong, and the token."""
    for kind in (wrong_algorithms, wrong_headers, wrong_claims, broken):
        yield from kind(forger)


def body_without_id(reply: Reply) -> str:
    return reply.text.replace(reply.request_id, "<id>")


def headers_of(reply: Reply) -> dict[str, str]:
    return {k: v for k, v in reply.headers.items() if k not in ("date", "x-request-id")}


def test_the_forger_can_make_a_good_token(hub: RunningHub, forger: Forger) -> None:
    """Positive control: what is bad below is so for the one thing that is wrong."""
    for token in (forger.signed(), forger.signed(nbf=int(time.time()) - 5), forger.signed(more=1)):
        headers = {"authorization": f"Bearer {token}"}
        assert hub.request("GET", PATH, headers=headers).status == 200


def test_no_bad_token_is_accepted_and_all_are_answered_alike(
    hub: RunningHub, forger: Forger
) -> None:
    missing = hub.request("GET", PATH)
    assert (missing.status, missing.reason) == (401, "UNAUTHENTICATED")
    assert missing.headers["www-authenticate"].startswith("Bearer")
    wrong = []
    seen = 0
    for what, token in bad_tokens(forger):
        reply = hub.request(
            "GET", PATH, headers={"authorization": f"Bearer {token}".encode().decode("latin-1")}
        )
        seen += 1
        if (reply.status, body_without_id(reply)) != (401, body_without_id(missing)):
            wrong.append((what, reply.status, reply.text))
        else:
            assert headers_of(reply) == headers_of(missing), what
    assert not wrong
    assert seen > 100


def test_nor_by_grpc(hub: RunningHub, forger: Forger) -> None:
    texts = set()
    with grpc.insecure_channel(f"127.0.0.1:{hub.port}") as channel:
        stub = CustomersStub(channel)
        for what, token in list(bad_tokens(forger))[::5]:
            if not token.isascii():
                continue
            with pytest.raises(grpc.RpcError) as raised:
                stub.ListCustomers(
                    api.ListCustomersRequest(), metadata=(("authorization", f"Bearer {token}"),)
                )
            refused: Any = raised.value
            assert refused.code() is grpc.StatusCode.UNAUTHENTICATED, what
            texts.add(refused.details())
    assert texts == {"valid credentials are required: a bearer token or an API key"}


def raw_headers(hub: RunningHub, headers: list[tuple[str, str]]) -> Reply:
    """A call with headers as they are given, repeated ones too."""
    connection = http.client.HTTPConnection("127.0.0.1", hub.port, timeout=30)
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
        [("authorization", f"Bearer {key}")],
        [("x-api-key", good[7:])],
        [("x-api-key", "")],
        [("x-api-key", key[:-1])],
        [("x-api-key", key + "x")],
        [("x-api-key", key.upper())],
        [("x-api-key", key.split("_")[1])],
        [("x-api-key", "psk_" + "x" * 10_000)],
        [("cookie", f"authorization={good}; x-api-key={key}")],
        [("x-forwarded-authorization", good)],
        [("X_API_KEY", key)],
    ]
    missing = raw_headers(hub, [])
    assert missing.status == 401
    for headers in cases:
        reply = raw_headers(hub, headers)
        assert reply.status == 401, headers
        assert body_without_id(reply) == body_without_id(missing), headers
    assert raw_headers(hub, [("authorization", good)]).status == 200
    assert raw_headers(hub, [("X-API-Key", key)]).status == 200
    for query in (f"access_token={good[7:]}", f"api_key={key}", f"x-api-key={key}"):
        assert hub.request("GET", f"{PATH}&{query}").status in (400, 401)


def within(seconds: float, check: Callable[[], bool]) -> None:
    started = time.monotonic()
    eventually(check, seconds)
    assert time.monotonic() - started < seconds


def status(hub: RunningHub, headers: dict[str, str]) -> list[int]:
    """The statuses of several calls: every worker must know."""
    return [hub.request("GET", PATH, headers=headers).status for _ in range(8)]


@pytest.mark.parametrize("kind", ["api_key", "client_secret"])
def test_a_revoked_credential_is_refused_within_five_seconds(hub: RunningHub, kind: str) -> None:
    secret = hub.consumers["bi"][kind]
    identifier = secret.split("_")[1]
    headers = {"x-api-key": secret}
    if kind == "client_secret":
        headers = {"authorization": f"Bearer {hub.token('bi')}"}
    revoke = "UPDATE hub.credential SET revoked = $2 WHERE credential_id = $1"
    assert status(hub, headers) == [200] * 8
    try:
        hub.sql(revoke, identifier, True)
        within(5, lambda: status(hub, headers) == [401] * 8)
        refused = hub.request("GET", PATH, headers=headers)
        assert body_without_id(refused) == body_without_id(hub.request("GET", PATH))
    finally:
        hub.sql(revoke, identifier, False)
        within(5, lambda: status(hub, headers) == [200] * 8)


def test_an_expired_credential_and_an_inactive_consumer(hub: RunningHub) -> None:
    headers = {"x-api-key": hub.consumers["bi"]["api_key"]}
    identifier = headers["x-api-key"].split("_")[1]
    expire = "UPDATE hub.credential SET expire_time ="
    try:
        hub.sql(f"{expire} now() - interval '1s' WHERE credential_id = $1", identifier)
        within(5, lambda: status(hub, headers) == [401] * 8)
    finally:
        hub.sql(f"{expire} NULL WHERE credential_id = $1", identifier)
    within(5, lambda: status(hub, headers) == [200] * 8)
    try:
        hub.sql("UPDATE hub.consumer SET active = false WHERE consumer_id = 'bi'")
        within(5, lambda: status(hub, headers) == [401] * 8)
    finally:
        hub.sql("UPDATE hub.consumer SET active = true WHERE consumer_id = 'bi'")
    within(5, lambda: status(hub, headers) == [200] * 8)


def test_a_narrowed_role_takes_effect_within_five_seconds(hub: RunningHub) -> None:
    def seen() -> set[frozenset[str]]:
        replies = [hub.get("/v1/customers", "bi", page_size=1) for _ in range(8)]
        return {frozenset(r.json()["customers"][0]) for r in replies}

    old = hub.sql("SELECT field_masks FROM hub.grant WHERE role_id='bi' AND dataset='customers'")
    narrow = "UPDATE hub.grant SET field_masks = $1 WHERE role_id = 'bi' AND dataset = 'customers'"
    assert all("name" in fields for fields in seen())
    token = hub.get("/v1/customers", "bi", page_size=1).json()["nextPageToken"]
    try:
        hub.sql(narrow, json.dumps({**json.loads(old[0][0]), "name": "hide"}))
        within(5, lambda: not any("name" in fields for fields in seen()))
        continued = hub.get("/v1/customers", "bi", page_size=1, page_token=token)
        assert continued.reason == "PAGE_TOKEN_INVALID", "a page of another policy"
    finally:
        hub.sql(narrow, old[0][0])
    within(5, lambda: all("name" in fields for fields in seen()))
