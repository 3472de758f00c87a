"""The hub's own tokens, its keys, and the cost of a bad token."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from foreign import AUDIENCE, NAME, ForeignIssuer, KeyServer, part
from forging import FOREIGN_TYPES, Forger, bad_tokens
from harness import processor_slowness
from penstockd.auth.compact import Malformed, open_token
from penstockd.auth.issuers import Issuer, Issuers
from penstockd.auth.jwks import Origins
from penstockd.auth.keys import SigningKey, SigningKeys
from penstockd.auth.tokens import Tokens

#: S1 allows 5 ms of CPU for a bad token; the mean must stay within that on any machine.
CPU = 0.005


def key(key_id: str, begins: float = -10, ends: float | None = None) -> SigningKey:
    """A key whose times are relative to now."""
    now = datetime.now(UTC)
    retire = None if ends is None else now + timedelta(seconds=ends)
    private = ec.generate_private_key(ec.SECP256R1())
    return SigningKey(key_id, private, now, now + timedelta(seconds=begins), retire)


def tokens(*keys: SigningKey, clock: Callable[[], float] = time.time) -> Tokens:
    return Tokens(
        SigningKeys(keys), issuer="penstock", audience="penstock", lifetime=900, clock=clock
    )


def test_a_token_says_what_it_was_issued_for() -> None:
    made = tokens(key("a"))
    for scopes in (None, frozenset({"customers:read", "*:create"})):
        claims = made.verify(made.issue("crm", "c1", scopes))
        assert claims is not None
        assert (claims.subject, claims.credential_id, claims.scopes) == ("crm", "c1", scopes)


def test_tokens_under_an_earlier_name_are_valid_until_they_expire() -> None:
    """Nodes learn each other's names, and what the hub was called before."""
    now = time.time()
    keys = SigningKeys([key("a")])
    named = {
        name: Tokens(keys, issuer=name, audience="penstock", lifetime=900, clock=lambda: now)
        for name in ("penstock", "https://hub.example.com", "https://another.example.com")
    }
    hub, old = named["https://hub.example.com"], named["penstock"].issue("crm", "c1")
    other = named["https://another.example.com"].issue("crm", "c1")
    assert hub.verify(old) is None, "nobody has said that this was its name"
    hub.replace(keys, ["penstock"])
    assert hub.verify(old) is not None and hub.verify(hub.issue("crm", "c1")) is not None
    assert hub.verify(other) is None, "the same key, but no name of this hub"
    now += 901
    assert hub.verify(old) is None
    hub.replace(keys)
    assert hub.own_issuers == {"https://hub.example.com"}


def test_a_key_that_is_published_signs_when_its_time_comes() -> None:
    now = time.time()
    old, new = key("old", -100, ends=1000), key("new", 60)
    made = tokens(old, new, clock=lambda: now)
    before = made.issue("crm", "c1")
    assert open_token(before)[0]["kid"] == "old"
    now += 61
    after = made.issue("crm", "c1")
    assert open_token(after)[0]["kid"] == "new"
    for token in (before, after):
        assert made.verify(token) is not None


def test_a_retired_key_verifies_nothing() -> None:
    now = time.time()
    made = tokens(key("old", -100, ends=50), clock=lambda: now)
    token = made.issue("crm", "c1")
    now += 51
    assert made.verify(token) is None


def test_a_token_that_was_verified_dies_with_its_key() -> None:
    old = key("old")
    made = tokens(old)
    token = made.issue("crm", "c1")
    assert made.verify(token) is not None
    made.replace(SigningKeys([old, key("new", 60)]))
    assert made.verify(token) is not None
    made.replace(SigningKeys([key("new")]))
    assert made.verify(token) is None


def test_a_token_ends() -> None:
    now = time.time()
    made = tokens(key("a"), clock=lambda: now)
    token = made.issue("crm", "c1")
    assert made.verify(token) is not None
    now += 901
    assert made.verify(token) is None


@pytest.fixture
def server() -> Iterator[KeyServer]:
    issuer = ForeignIssuer()
    issuer.add("k1")
    with KeyServer(issuer).running() as running:
        yield running


def own_forger(made: Tokens) -> Forger:
    header, claims = open_token(made.issue("admin", "c1"))
    return Forger(
        header=header,
        claims=claims,
        private=made.keys.all[0].private,
        jwks=b"",
        # The signature does not decide whose a token is: the policy knows its credentials.
        subjects={"sub": [None, 7, ["admin"]]},
        audiences=[["penstock", "another"]],
    )


def too_much(good: str) -> Iterator[str]:
    head, body, signature = good.split(".")
    yield "x" * 5_000_000
    yield f"{head}.{'x' * 5_000_000}.{signature}"
    yield "." * 5_000_000
    yield part({"a": [[]] * 2000}) + f".{body}.{signature}"


def test_bad_tokens_are_refused_at_little_cost() -> None:
    made = tokens(key("a"))
    forger = own_forger(made)
    assert made.verify(forger.signed()) is not None
    bad = [*bad_tokens(forger), *(("too much", t) for t in too_much(forger.signed()))]
    spent = time.process_time()
    accepted = [what for what, token in bad if made.verify(token) is not None]
    spent = time.process_time() - spent
    assert not accepted
    assert len(bad) > 100
    assert spent / len(bad) < CPU * processor_slowness()


async def test_bad_tokens_of_others_too(server: KeyServer) -> None:
    issuers = Issuers(Origins(loopback=True))
    try:
        issuers.replace(
            [
                Issuer(
                    "idp",
                    NAME,
                    server.issuer.url,
                    (AUDIENCE,),
                    ("RS256", "ES256"),
                    ("at+jwt",),
                    3600,
                    consumer_claim="azp",
                    consumers_by_claim=True,
                )
            ]
        )
        forger = Forger(
            header={"alg": "ES256", "kid": "k1", "typ": "at+jwt"},
            claims=server.issuer.claims(),
            private=server.issuer.keys["k1"],
            jwks=server.issuer.document(),
            subjects={"azp": ["", None, 7, ["admin"]]},
            types=FOREIGN_TYPES,
        )
        assert await issuers.verify(forger.signed()) is not None
        bad = [*bad_tokens(forger), *(("too much", t) for t in too_much(forger.signed()))]
        spent = time.process_time()
        accepted = [what for what, token in bad if await issuers.verify(token) is not None]
        spent = time.process_time() - spent
        assert not accepted
        assert len(bad) > 100
        assert spent / len(bad) < CPU * processor_slowness()
        assert server.requests <= 2
    finally:
        issuers.close()


@pytest.mark.parametrize("text", ["", "a.b", "a.b.c.d", "a.b.c ", " a.b.c", "a.b.c\n", "ä.b.c"])
def test_what_is_no_token(text: str) -> None:
    with pytest.raises(Malformed):
        open_token(text)
