"""Stream tickets: what they are bound to, and when they are valid."""

from __future__ import annotations

import time

import pytest

from penstockd.auth.secret import RootSecret
from penstockd.auth.tickets import MOST_SECONDS, OPEN_SECONDS, ShownTicket, Tickets
from penstockd.keyring import STREAM_TICKETS, FixedKey, KeyRing, SecretTerm
from penstockd.policy.model import Principal
from penstockd.rpc.rest.tickets import add_ticket, name_feed, read_ticket, split_ticket

FEED = name_feed("/v1/customers:watch", "filter=a")


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tickets(clock: Clock) -> Tickets:
    return Tickets(FixedKey(b"k" * 32), clock)


def principal(expires: float = 1e12) -> Principal:
    return Principal("crm", "c1", frozenset(), expires=expires)


def test_it_holds_the_credential_and_the_token(tickets: Tickets, clock: Clock) -> None:
    text, made = tickets.issue(principal(), FEED, "a token")
    found = tickets.open(ShownTicket(text, FEED))
    assert found == made
    assert (made.consumer_id, made.credential_id, made.token) == ("crm", "c1", "a token")
    assert made.opens_until == clock.now + OPEN_SECONDS
    assert made.expires == clock.now + MOST_SECONDS
    assert tickets.issue(principal(), FEED, "")[0] != text


def test_it_says_nothing_to_its_holder(tickets: Tickets) -> None:
    text, _ = tickets.issue(principal(), FEED, "a token")
    assert "crm" not in text and "token" not in text


def test_it_is_bound_to_its_feed_and_its_key(tickets: Tickets) -> None:
    text, _ = tickets.issue(principal(), FEED, "")
    assert tickets.open(ShownTicket(text, name_feed("/v1/customers:watch", "filter=b"))) is None
    assert Tickets(FixedKey(b"x" * 32)).open(ShownTicket(text, FEED)) is None
    for bad in ("", "x", "🐘", "A" * 20_000, text[:-1], text + "A", text + "=", f"{text},{text}"):
        assert tickets.open(ShownTicket(bad, FEED)) is None, bad


def test_after_a_minute_it_takes_a_proof(tickets: Tickets, clock: Clock) -> None:
    text, _ = tickets.issue(principal(), FEED, "")
    proof = tickets.prove(text)
    clock.now += OPEN_SECONDS
    other = tickets.prove(tickets.issue(principal(), FEED, "")[0])
    for bad in ("", "x", other, proof[:-1], proof + "A"):
        assert tickets.open(ShownTicket(text, FEED, bad)) is None, bad
    assert tickets.open(ShownTicket(text, FEED, proof)) is not None
    clock.now += MOST_SECONDS
    assert tickets.open(ShownTicket(text, FEED, proof)) is None


def test_it_does_not_outlive_the_token(tickets: Tickets, clock: Clock) -> None:
    text, made = tickets.issue(principal(expires=clock.now + 30), FEED, "t")
    assert (made.opens_until, made.expires) == (clock.now + 30, clock.now + 30)
    clock.now += 30
    assert tickets.open(ShownTicket(text, FEED, tickets.prove(text))) is None


def test_it_outlives_a_rotation_of_the_root_secret() -> None:
    old, new = RootSecret("o" * 40), RootSecret("n" * 40)
    ring = KeyRing(lambda: [old, new])
    tickets = Tickets(ring.keys(STREAM_TICKETS), lambda: 1000.0)
    text, _ = tickets.issue(principal(), FEED, "")
    proof = tickets.prove(text)
    ring.use([SecretTerm(old.secret_id, 0.0), SecretTerm(new.secret_id, time.time() - 1)], {})
    assert tickets.prove(text) != proof, "the new secret seals"
    assert tickets.open(ShownTicket(text, FEED, proof)) is not None
    ring.use([SecretTerm(old.secret_id, 0.0, retired=True), SecretTerm(new.secret_id, 0.0)], {})
    assert tickets.open(ShownTicket(text, FEED, proof)) is None


def test_the_url_of_a_feed() -> None:
    url = add_ticket("/v1/customers:watch", 'filter=name = "ä"&fields=name', "T")
    path, _, query = url.partition("?")
    rest, ticket = split_ticket(query)
    assert (path, ticket) == ("/v1/customers:watch", "T")
    # However the browser writes the query, it is the same feed.
    feed = name_feed(path, 'filter=name = "ä"&fields=name')
    assert name_feed(path, rest) == feed
    assert name_feed(path, rest + "&cursor=x") == name_feed(path, "cursor=y&" + rest) == feed
    # Who saw the ticket of a feed of changes gets no dump of all records with it.
    for other in (
        "snapshot=true&" + rest,
        rest + "&snapshot=true",
        rest + "&snapshot=false",
        "filter=name&fields=name",
        rest + "&fields=name",
        "",
    ):
        assert name_feed(path, other) != feed
    assert split_ticket("a=1&ticket=x&ticket=y") == ("a=1", "x,y")
    assert read_ticket(path, "a=1", "", {}) is None
    shown = read_ticket(path, "a=%FF", "x", {"last-event-id": "cursor~proof"})
    assert shown is not None and (shown.feed, shown.proof) == ("", "proof")
