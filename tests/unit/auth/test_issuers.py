"""Tokens of other issuers, against a key set that a real server publishes."""

from __future__ import annotations

import asyncio
import gzip
import ipaddress
import json
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from foreign import AUDIENCE, NAME, ForeignIssuer, KeyServer, b64, part
from harness import duration, promptly
from penstockd.auth import jwks
from penstockd.auth.issuers import ClaimMapping, Identity, Issuer, Issuers
from penstockd.auth.jwks import JwksUnavailable, Origins, fetch_keys, read_jwks
from penstockd.egress import UrlRefused

#: Allows key sets on this machine, where a test's own issuer publishes them.
NEAR = Origins(loopback=True)


@pytest.fixture
def server() -> Iterator[KeyServer]:
    issuer = ForeignIssuer()
    issuer.add("k1")
    with KeyServer(issuer).running() as running:
        yield running


def entry(server: KeyServer, **changed: Any) -> Issuer:
    given: dict[str, Any] = {
        "issuer_id": "idp",
        "issuer": NAME,
        "jwks_uri": server.issuer.url,
        "audiences": (AUDIENCE,),
        "algorithms": ("ES256", "RS256", "PS256", "ES384", "EdDSA"),
        "token_types": ("at+jwt",),
        "max_age_seconds": 3600,
        "consumer_claim": "azp",
        "consumers_by_claim": True,
    }
    return Issuer(**{**given, **changed})


@pytest.fixture
async def issuers() -> AsyncIterator[Issuers]:
    made = Issuers(NEAR)
    yield made
    made.close()


async def consumer(issuers: Issuers, token: str) -> str | None:
    identity = await issuers.verify(token)
    return identity.consumer_id if identity is not None else None


async def test_a_good_token_is_taken_and_remembered(server: KeyServer, issuers: Issuers) -> None:
    issuers.replace([entry(server)])
    token = server.issuer.token()
    assert issuers.known(token) is None
    assert await consumer(issuers, token) == "crm"
    assert issuers.known(token) is not None
    for _ in range(20):
        assert await consumer(issuers, server.issuer.token(jti=str(time.time_ns()))) == "crm"
    assert server.requests == 1


@pytest.mark.parametrize("algorithm", ["ES256", "ES384", "RS256", "PS256", "EdDSA"])
async def test_algorithms(server: KeyServer, issuers: Issuers, algorithm: str) -> None:
    server.issuer.add("other", algorithm)
    issuers.replace([entry(server)])
    assert await consumer(issuers, server.issuer.token("other", algorithm)) == "crm"
    issuers.replace([entry(server, algorithms=("ES512",))])
    assert await consumer(issuers, server.issuer.token("other", algorithm)) is None


async def test_a_key_is_used_with_its_own_algorithm_only(
    server: KeyServer, issuers: Issuers
) -> None:
    server.issuer.add("r", "RS256")
    issuers.replace([entry(server)])
    assert await consumer(issuers, server.issuer.token("r", "RS256")) == "crm"
    assert await consumer(issuers, server.issuer.token("r", "PS256")) is None


@pytest.mark.parametrize(
    ("changed", "taken"),
    [
        ({"header": {"typ": "AT+JWT"}}, True),
        ({"header": {"typ": "application/at+jwt"}}, True),
        ({"header": {"typ": "JWT"}}, False),
        ({"header": {"x5t": "abc"}}, True),
        ({"aud": ["another", AUDIENCE]}, True),
        ({"aud": ["another"]}, False),
        ({"nbf": 20}, True),
        ({"nbf": 600}, False),
        ({"iat": 20}, True),
        ({"iat": 600}, False),
        ({"iat": -3500, "exp": 10**8}, True),
        ({"iat": -3610, "exp": 10**8}, False),
        ({"exp": -1}, False),
        ({"azp": None}, False),
        ({"azp": ["crm"]}, False),
        ({"azp": ""}, False),
    ],
    ids=str,
)
async def test_what_is_taken(
    server: KeyServer, issuers: Issuers, changed: dict[str, Any], taken: bool
) -> None:
    issuers.replace([entry(server)])
    now = int(time.time())
    for name in changed.keys() & {"iat", "nbf", "exp"}:
        changed = {**changed, name: now + changed[name]}
    found = await consumer(issuers, server.issuer.token(**changed))
    assert found == ("crm" if taken else None)


async def test_a_remembered_token_ends_with_its_time(server: KeyServer) -> None:
    now = time.time()
    issuers = Issuers(NEAR, clock=lambda: now)
    try:
        issuers.replace([entry(server, max_age_seconds=60)])
        token = server.issuer.token()
        assert await consumer(issuers, token) == "crm"
        now += 59
        assert issuers.known(token) is not None
        now += 2
        assert issuers.known(token) is None
        assert await consumer(issuers, token) is None
    finally:
        issuers.close()


async def test_which_consumer(server: KeyServer, issuers: Issuers) -> None:
    token = server.issuer.token(azp="app-7")
    for changed, expected in (
        ({}, "app-7"),
        ({"consumers_by_claim": False}, None),
        ({"consumers_by_claim": False, "consumers": {"app-7": "bi", "app-8": "admin"}}, "bi"),
        ({"consumers_by_claim": False, "consumers": {"app-8": "admin"}}, None),
        ({"consumer_claim": "", "consumer_id": "crm"}, "crm"),
        ({"consumer_claim": "sub"}, None),
        ({"active": False}, None),
    ):
        issuers.replace([entry(server, **changed)])
        assert issuers.known(token) is None, "a change forgets what was verified before it"
        assert await consumer(issuers, token) == expected, changed


async def test_claims_and_scopes(server: KeyServer, issuers: Issuers) -> None:
    mappings = (ClaimMapping("org_id", "org"), ClaimMapping("u", "unit", override=True))
    issuers.replace([entry(server, claims=mappings, scope_claim="scp")])

    async def said(**claims: Any) -> Identity:
        identity = await issuers.verify(server.issuer.token(**claims))
        assert identity is not None
        return identity

    full = await said(org_id="o1", u=["a", 7, True], scp="customers:read orders:*")
    assert full.claims == {"org": ("o1",)}
    assert full.overriding == {"unit": ("a", "7", "true")}
    assert full.scopes == frozenset({"customers:read", "orders:*"})
    odd = await said(org_id={"a": 1}, u=["a", None], scp=["customers:read"])
    assert not odd.claims and not odd.overriding
    assert odd.scopes == frozenset({"customers:read"})
    assert (await said()).scopes == frozenset(), "no scopes are no rights where they decide"


async def test_a_new_key_is_found_and_an_old_one_lost(
    server: KeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwks, "RETRY", 0.0)
    issuers = Issuers(NEAR)
    try:
        issuers.replace([entry(server)])
        old = server.issuer.token()
        assert await consumer(issuers, old) == "crm"
        server.issuer.add("k2")
        del server.issuer.listed[0]
        assert await consumer(issuers, server.issuer.token("k2")) == "crm"
        assert issuers.known(old) is None
        assert await consumer(issuers, old) is None
    finally:
        issuers.close()


async def test_unknown_keys_are_not_asked_for_at_will(server: KeyServer, issuers: Issuers) -> None:
    issuers.replace([entry(server)])
    server.issuer.add("k2", listed=False)
    forged = [server.issuer.token("k2", jti=str(i)) for i in range(50)]
    assert set(await asyncio.gather(*[consumer(issuers, t) for t in forged])) == {None}
    assert server.requests == 1


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def source_of(
    server: KeyServer, clock: Clock, *, changed: Any = lambda: None
) -> jwks.KeySource:
    return jwks.KeySource(
        server.issuer.url,
        ["ES256"],
        ThreadPoolExecutor(1),
        origins=NEAR,
        changed=changed,
        clock=clock,
    )


async def test_an_issuer_that_is_down_matters_after_an_hour(server: KeyServer) -> None:
    clock = Clock()
    source = await source_of(server, clock)
    assert await source.key("k1") is not None

    def fail(handler: Any) -> None:
        handler.send_error(500)

    server.answer = fail
    clock.now = jwks.KEEP - 1
    assert await source.key("k1") is not None
    clock.now = jwks.KEEP + 1
    assert not source.good
    assert await source.key("k1") is None
    server.answer = None
    clock.now += jwks.RETRY
    assert await source.key("k1") is not None, "it is asked again"


async def test_old_keys_are_fetched_again_beside_the_calls(server: KeyServer) -> None:
    clock, changes = Clock(), []
    source = await source_of(server, clock, changed=lambda: changes.append(clock.now))
    assert await source.key("k1") is not None
    clock.now = jwks.REFRESH + 1
    del server.issuer.listed[0]
    assert await source.key("k1") is not None, "nobody waits for it"
    assert source.fetching is not None
    await source.fetching
    assert await source.key("k1") is None
    assert len(changes) == 2


@pytest.mark.parametrize("deadline", [0.3])
def test_hostile_replies(
    server: KeyServer, monkeypatch: pytest.MonkeyPatch, deadline: float
) -> None:
    monkeypatch.setattr(jwks, "DEADLINE", deadline)
    monkeypatch.setattr(jwks, "TIMEOUT", deadline)

    def headers(handler: Any, status: int = 200, **more: str) -> None:
        handler.send_response(status)
        for name, value in more.items():
            handler.send_header(name, value)
        handler.end_headers()

    def redirect(handler: Any) -> None:
        headers(handler, 302, location=server.issuer.url)

    def huge(handler: Any) -> None:
        headers(handler)
        handler.wfile.write(b" " * (jwks.MAX_BYTES + 1))

    def endless(handler: Any) -> None:
        headers(handler)
        while True:
            handler.wfile.write(b" ")
            time.sleep(0.02)

    def silent(handler: Any) -> None:
        time.sleep(2 * deadline)

    def garbage(handler: Any) -> None:
        handler.wfile.write(b"\x00" * 100)
        handler.wfile.flush()

    def unavailable() -> None:
        with pytest.raises(JwksUnavailable):
            fetch_keys(server.issuer.url, NEAR)

    for answer in (redirect, huge, endless, silent, garbage):
        server.answer = answer
        promptly(5, lambda: duration(unavailable))
    server.answer = None
    monkeypatch.undo()
    assert json.loads(fetch_keys(server.issuer.url, NEAR))["keys"]


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"{}", b'{"keys": 1}', b'{"keys": [1]}', b"{" * 10_000, gzip.compress(b"{}")],
)
def test_what_is_no_key_set(data: bytes) -> None:
    with pytest.raises(JwksUnavailable):
        read_jwks(data, ["ES256"])


def test_keys_that_are_not_used() -> None:
    issuer = ForeignIssuer()
    issuer.add("good")
    issuer.add("good-rsa", "RS256")
    good, good_rsa = issuer.listed

    def weak(bits: int, exponent: int = 65537) -> dict[str, Any]:
        public = rsa.generate_private_key(exponent, bits).public_key().public_numbers()
        n, e = (b64(x.to_bytes((x.bit_length() + 7) // 8, "big")) for x in (public.n, public.e))
        return {"kty": "RSA", "n": n, "e": e}

    unusable = [
        {**good, "use": "enc"},
        {**good, "key_ops": ["encrypt"]},
        {**good, "alg": "ES384"},
        {**good, "alg": "none"},
        {**good, "crv": "P-384"},
        {**good, "x": "AAAA"},
        {**good, "d": "AAAA"},
        {**good_rsa, "alg": "HS256"},
        {**good_rsa, "e": b64((2**40 + 1).to_bytes(6, "big"))},
        weak(1024),
        {"kty": "oct", "k": b64(b"x" * 32), "alg": "HS256"},
        {"kty": "oct", "k": b64(b"x" * 32)},
        {"kty": "EC"},
        {"kty": "RSA"},
        {},
    ]
    listed = [good, good_rsa, *[{**jwk, "kid": f"bad{i}"} for i, jwk in enumerate(unusable)]]
    listed += [{**good, "kid": "twice"}, {**good, "kid": "twice"}]
    listed += [{**good, "kid": 7}, {k: v for k, v in good.items() if k != "kid"}]
    found = read_jwks(json.dumps({"keys": listed}).encode(), ["ES256", "RS256", "HS256", "none"])
    assert set(found) == {"good", "good-rsa"}
    assert found["good"].algorithms == {"ES256"}


@pytest.mark.parametrize(
    ("url", "near", "far"),
    [
        ("https://login.example.com/keys?x=1", True, True),
        ("https://10.0.0.1:8443/keys", False, False),
        ("http://127.0.0.1:1/keys", True, False),
        ("http://localhost/keys", True, False),
        ("http://[::1]:80/keys", True, False),
        ("http://login.example.com/keys", False, False),
        ("http://127.0.0.1.example.com/keys", False, False),
        ("http://2130706433/keys", False, False),
        ("https://user:pw@login.example.com/", False, False),
        ("https://login.example.com/#x", False, False),
        ("https:///keys", False, False),
        ("https://h:99999/", False, False),
        ("https://h/\r\nx: y", False, False),
        ("file:///etc/passwd", False, False),
        ("ftp://h/", False, False),
        ("", False, False),
        ("//h/keys", False, False),
    ],
)
def test_urls(url: str, near: bool, far: bool) -> None:
    for origins, fine in ((NEAR, near), (Origins(), far)):
        if fine:
            origins.check_url(url)
        else:
            with pytest.raises(UrlRefused):
                origins.check_url(url)


def test_networks_that_the_operator_allows_are_open_by_https_alone() -> None:
    inside = Origins([ipaddress.ip_network("10.0.0.0/8")])
    inside.check_url("https://10.0.0.1:8443/keys")
    for url in ("http://10.0.0.1/keys", "https://192.168.0.1/keys", "https://127.0.0.1/keys"):
        with pytest.raises(UrlRefused):
            inside.check_url(url)


async def test_nothing_is_fetched_for_a_token_that_cannot_be_good(
    server: KeyServer, issuers: Issuers
) -> None:
    issuers.replace([entry(server)])
    claims = server.issuer.claims()
    head = {"alg": "ES256", "kid": "k1", "typ": "at+jwt"}
    for header in (
        {**head, "alg": "none"},
        {**head, "alg": "HS256"},
        {**head, "typ": "JWT"},
        {**head, "jku": server.issuer.url},
        {**head, "crit": ["exp"]},
        {"alg": "ES256", "typ": "at+jwt"},
        {**head, "kid": ["k1"]},
        {**head, "kid": None},
    ):
        assert await consumer(issuers, f"{part(header)}.{part(claims)}.AAAA") is None
    assert await consumer(issuers, server.issuer.token(iss="https://unknown.example")) is None
    assert server.requests == 0
