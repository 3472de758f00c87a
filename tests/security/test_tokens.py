"""S1: bad tokens, the hub's own and another issuer's. None is accepted, all get the same answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import asyncpg
import grpc
import jwt
import pytest

from foreign import ForeignIssuer, KeyServer, part
from forging import FOREIGN_TYPES, Forger, bad_tokens
from harness import Reply, RunningHub
from penstock.api.v1 import customers_service_pb2 as api
from penstock.api.v1.customers_service_pb2_grpc import CustomersStub
from penstockd.auth.keys import SigningKeys, load_signing_keys
from penstockd.auth.secret import load_secret
from penstockd.keyring import SIGNING, KeyRing, Seal

from .test_credentials import PATH, body_without_id, headers_of


def stolen_keys(hub: RunningHub) -> SigningKeys:
    """The hub's own keys, as a thief of its folder and its database has them."""

    async def read() -> SigningKeys:
        connection = await asyncpg.connect(hub.dsn)
        try:
            ring = KeyRing.of(load_secret(None, hub.data))
            return await load_signing_keys(connection, Seal(ring.keys(SIGNING)))
        finally:
            await connection.close()

    return asyncio.run(read())


def own_forger(hub: RunningHub) -> Forger:
    keys, token = stolen_keys(hub), hub.token("admin")
    header = jwt.get_unverified_header(token)
    return Forger(
        header=header,
        claims=jwt.decode(token, options={"verify_signature": False}),
        # Another test may have rotated the keys since the token was made.
        private=next(k.private for k in keys.newest() if k.key_id == header["kid"]),
        jwks=keys.jwks,
        subjects={
            "sub": ["nobody", "", None, 7, ["admin"], "crm"],
            "cid": ["nothing", "", None, 7],
        },
        audiences=[["penstock", "another"]],
    )


def entry(issuer: ForeignIssuer, /, **changed: Any) -> dict[str, Any]:
    """The issuer's entry as an administrator writes it."""
    given = {
        "issuerId": "s1",
        "issuer": issuer.claims()["iss"],
        "jwksUri": issuer.url,
        "audiences": [issuer.claims()["aud"]],
        "consumerClaim": "azp",
        "consumersByClaim": True,
    }
    return {**given, **changed}


@pytest.fixture(scope="module")
def foreign(hub: RunningHub) -> Iterator[ForeignIssuer]:
    """An issuer that the hub trusts."""
    issuer = ForeignIssuer()
    issuer.add("k1")
    with KeyServer(issuer).running():
        path = "/v1/access/issuers"
        made = hub.request("POST", path, consumer="admin", json_body=entry(issuer))
        assert made.status == 200, made.text
        yield issuer
        assert hub.request("DELETE", f"{path}/s1", consumer="admin").status == 200


def foreign_forger(issuer: ForeignIssuer) -> Forger:
    return Forger(
        header={"alg": "ES256", "kid": "k1", "typ": "at+jwt"},
        claims=issuer.claims(),
        private=issuer.keys["k1"],
        jwks=issuer.document(),
        subjects={"azp": ["nobody", "", None, 7, ["admin"]]},
        types=FOREIGN_TYPES,
    )


@pytest.fixture(scope="module", params=["own", "foreign"])
def forger(hub: RunningHub, foreign: ForeignIssuer, request: pytest.FixtureRequest) -> Forger:
    return own_forger(hub) if request.param == "own" else foreign_forger(foreign)


def call(hub: RunningHub, token: str) -> Reply:
    sent = f"Bearer {token}".encode().decode("latin-1")
    return hub.request("GET", PATH, headers={"authorization": sent})


def test_the_forger_can_make_a_good_token(hub: RunningHub, forger: Forger) -> None:
    """Positive control: each bad token below is refused only for its one fault."""
    for token in (forger.signed(), forger.signed(nbf=int(time.time()) - 5), forger.signed(more=1)):
        for _ in range(4):
            assert call(hub, token).status == 200


def test_no_bad_token_is_accepted_and_all_are_answered_alike(
    hub: RunningHub, forger: Forger
) -> None:
    missing = hub.request("GET", PATH)
    assert (missing.status, missing.reason) == (401, "UNAUTHENTICATED")
    assert missing.headers["www-authenticate"].startswith("Bearer")
    bad = {"www-authenticate": 'Bearer realm="penstock", error="invalid_token"'}
    wrong = []
    seen = 0
    for what, token in bad_tokens(forger):
        reply = call(hub, token)
        seen += 1
        if (reply.status, body_without_id(reply)) != (401, body_without_id(missing)):
            wrong.append((what, reply.status, reply.text))
        else:
            assert headers_of(reply) == headers_of(missing) | (bad if token.strip() else {}), what
    assert not wrong
    assert seen > 100


def test_nor_by_grpc(hub: RunningHub, forger: Forger) -> None:
    texts = set()
    with grpc.insecure_channel(f"127.0.0.1:{hub.port}") as channel:
        stub = CustomersStub(channel)
        for what, token in bad_tokens(forger):
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


def test_a_foreign_key_does_not_sign_the_hubs_tokens_nor_the_other_way_round(
    hub: RunningHub, foreign: ForeignIssuer
) -> None:
    own, other = own_forger(hub), foreign_forger(foreign)
    for a, b in ((own, other), (other, own)):
        for header in (a.header, b.header):
            for claims in (a.claims, b.claims):
                for key in (a.private, b.private):
                    token = a.sign(key, part(header), part(claims))
                    good = any(
                        (f.header, f.claims, f.private) == (header, claims, key) for f in (a, b)
                    )
                    assert call(hub, token).status == (200 if good else 401)
