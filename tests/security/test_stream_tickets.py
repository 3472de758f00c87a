"""Stream tickets: they open one feed, give no rights, end with their credential and leave no trace;
streams end with the tokens with which they began."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any
from urllib.parse import parse_qsl

import pytest

from event_source import EventSource, SentEvent
from feeds import consumer_with, grant, here, put
from harness import SECRET, Reply, RunningHub, eventually
from penstockd.auth.secret import RootSecret
from penstockd.auth.tickets import OPEN_SECONDS, Tickets
from penstockd.keyring import STREAM_TICKETS, KeyRing
from penstockd.policy.model import Principal
from penstockd.rpc.rest.tickets import add_ticket, name_feed

from .test_tokens import own_forger

FILTER = "filter=customer_id+%3D+%22{}%22"
PATH = "/v1/customers:watch"


def key() -> str:
    return f"t-{uuid.uuid4().hex[:12]}"


def ask(hub: RunningHub, feed: str, credentials: dict[str, str]) -> Reply:
    return hub.request("POST", "/v1/streamTickets", json_body={"feed": feed}, headers=credentials)


def as_key(made: Any) -> dict[str, str]:
    return {"x-api-key": made.key.removeprefix("key:")}


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def source(hub: RunningHub, url: str, last_id: str = "", **headers: str) -> EventSource:
    return EventSource(hub, url, headers=headers, last_id=last_id)


def refused(events: EventSource) -> tuple[int, str]:
    """The status and the reason of a refusal."""
    with events.request() as reply:
        body = reply.read()
        return reply.status, json.loads(body)["details"][0]["reason"] if body else ""


UNKNOWN = (401, "UNAUTHENTICATED")


def first_change(events: EventSource) -> SentEvent:
    return next(event for event in events.connect() if event.name == "message")


def test_a_page_follows_a_feed_and_reconnects_with_its_ticket(hub: RunningHub) -> None:
    one, start = key(), here(hub)
    feed = f"{PATH}?{FILTER.format(one)}&heartbeat_seconds=1"
    with consumer_with(hub, grant("customers")) as made:
        for credentials in (bearer(hub.token("crm")), as_key(made)):
            given = ask(hub, feed, credentials)
            assert given.status == 200, given.text
            assert given.headers["cache-control"] == "no-store"
            ticket = given.json()
            assert ticket["url"].startswith(f"{PATH}?") and ticket["ticket"] in ticket["url"]
            assert ticket["beginBeforeTime"] <= ticket["expireTime"]
            events = source(hub, f"{ticket['url']}&cursor={start}")
            put(hub, "customers", {"customerId": one, "name": key()})
            found = first_change(events)
            assert [c["key"] for c in found.data["changes"]] == [one]
            # The browser reconnects with the last id; that goes on, and so does its cursor.
            put(hub, "customers", {"customerId": one, "name": key()})
            again = first_change(events)
            cursor, _, proof = found.last_id.partition("~")
            assert cursor and proof
            fresh = source(hub, f"{ticket['url']}&cursor={cursor}")
            assert first_change(fresh).data["changes"] == again.data["changes"]
            start = here(hub)


def test_it_opens_one_feed(hub: RunningHub) -> None:
    feed = f"{PATH}?{FILTER.format('c1')}&fields=name"
    with consumer_with(hub, grant("customers"), grant("orders")) as made:
        ticket = ask(hub, feed, as_key(made)).json()
        text = ticket["ticket"]
        assert next(source(hub, ticket["url"]).connect()).name == "begin"
        assert next(source(hub, f"{ticket['url']}&cursor={here(hub)}").connect()).name == "begin"
        shown = f"ticket={text}"
        for url in (
            f"{PATH}?{shown}",
            f"{PATH}?{FILTER.format('c2')}&fields=name&{shown}",
            f"{PATH}?{FILTER.format('c1')}&{shown}",
            f"{PATH}?{FILTER.format('c1')}&fields=name&operations=CREATED&{shown}",
            f"/v1/orders:watch?{shown}",
            f"/v1/changes:watch?{shown}",
            f"{ticket['url']}&{shown}",
            f"{ticket['url']}&snapshot=true",
            f"{PATH}?{FILTER.format('c1')}&fields=name&ticket={text[:-2]}AA",
            f"{PATH}?{FILTER.format('c1')}&fields=name&ticket=nonsense",
            f"{PATH}?{FILTER.format('c1')}&fields=name&ticket=%F0%9F%90%98",
            f"/v1/customers:changes?{shown}",
            f"/v1/customers/c1?{shown}",
            f"/v1/customers:streamExport?{shown}",
            f"/v1/nothing?{shown}",
        ):
            assert refused(source(hub, url)) == UNKNOWN, url
        # One call shows one credential.
        for more in (bearer(hub.token("crm")), as_key(made)):
            assert refused(source(hub, ticket["url"], **more)) == UNKNOWN
        posted = hub.request("POST", f"/v1/streamTickets?{shown}", json_body={"feed": feed})
        assert posted.status == 401


def crafted(principal: Principal, feed: str, age: float, token: str = "") -> str:
    """A URL with a ticket that was made some seconds ago."""
    path, _, query = feed.partition("?")
    keys = KeyRing.of(RootSecret(SECRET)).keys(STREAM_TICKETS)
    tickets = Tickets(keys, clock=lambda: time.time() - age)
    return add_ticket(path, query, tickets.issue(principal, name_feed(path, query), token)[0])


def test_after_a_minute_it_only_continues_a_stream(hub: RunningHub) -> None:
    with consumer_with(hub, grant("customers")) as made:
        principal = Principal(made.name, made.credential, frozenset())
        fresh = source(hub, crafted(principal, PATH, 0))
        begun = next(fresh.connect())
        keys = KeyRing.of(RootSecret(SECRET)).keys(STREAM_TICKETS)
        old = crafted(principal, PATH, OPEN_SECONDS + 1)
        proof = Tickets(keys).prove(dict(parse_qsl(old.partition("?")[2]))["ticket"])
        cursor = begun.last_id.partition("~")[0]
        assert next(source(hub, old, f"{cursor}~{proof}").connect()).name == "begin"
        for last_id in ("", cursor, f"{cursor}~", begun.last_id, f"{cursor}~{'A' * 22}"):
            assert refused(source(hub, old, last_id)) == UNKNOWN, last_id
        assert refused(source(hub, f"{old}&cursor={cursor}~{proof}")) == UNKNOWN
        expired = crafted(principal, PATH, 3601)
        proof = Tickets(keys).prove(dict(parse_qsl(expired.partition("?")[2]))["ticket"])
        assert refused(source(hub, expired, f"{cursor}~{proof}")) == UNKNOWN


@pytest.mark.parametrize("way", ["revoked", "disabled", "no longer granted"])
def test_it_ends_with_the_access_that_made_it(hub: RunningHub, way: str) -> None:
    with consumer_with(hub, grant("customers")) as made:
        events = source(hub, ask(hub, f"{PATH}?heartbeat_seconds=1", as_key(made)).json()["url"])
        connection = events.connect()
        found = [next(connection)]
        if way == "revoked":
            path = f"/consumers/{made.name}/credentials/{made.credential}:revoke"
            made.administer("POST", path)
        elif way == "disabled":
            path = f"/consumers/{made.name}"
            made.administer("PATCH", path, {"active": False}, update_mask="active")
        else:
            made.regrant()
        found += connection
        assert (found[-1].name, found[-1].data["end"]["reconcile"]) == ("end", "STOP")
        hub.settle()
        with events.request() as reply:
            assert (reply.status, reply.read()) == (204, b""), "the browser must stop"
        first = source(hub, events.path)
        assert refused(first)[0] == 403, "one that does not reconnect sees why"


def test_a_narrowed_token_stays_narrow(hub: RunningHub) -> None:
    token = own_forger(hub).signed(scope="orders:read")
    # With it, the other datasets are like those that do not exist, for tickets and for their use.
    hidden = ask(hub, PATH, bearer(token))
    assert (hidden.status, hidden.reason) == (400, "VALUE_INVALID")
    ticket = ask(hub, "/v1/changes:watch?datasets=customers", bearer(token)).json()
    assert refused(source(hub, ticket["url"])) == (403, "PERMISSION_DENIED")
    orders = ask(hub, "/v1/orders:watch", bearer(token)).json()
    assert next(source(hub, orders["url"]).connect()).name == "begin"


def test_it_lives_no_longer_than_its_token(hub: RunningHub) -> None:
    ends = int(time.time()) + 300
    ticket = ask(hub, PATH, bearer(own_forger(hub).signed(exp=ends))).json()
    expires = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(ends))
    assert ticket["expireTime"] == expires


@pytest.mark.parametrize(
    "feed",
    ["", "/v1/customers", "/v1/customers:export", "/v1/nothing:watch", "customers", f"{PATH}/"],
)
def test_what_is_no_feed_gets_none(hub: RunningHub, feed: str) -> None:
    reply = ask(hub, feed, bearer(hub.token("crm")))
    assert (reply.status, reply.reason) == (400, "VALUE_INVALID")


def test_a_hidden_dataset_is_like_one_that_does_not_exist(hub: RunningHub) -> None:
    with consumer_with(hub, grant("customers")) as made:
        for query in ("", "?fliter=x", "?fields=no_such", "?ticket=x", "?%FF"):
            hidden, unknown = (
                ask(hub, f"/v1/{name}:watch{query}", as_key(made)) for name in ("orders", "no_such")
            )
            assert (hidden.status, hidden.reason) == (400, "VALUE_INVALID"), query
            assert hidden.violations() == unknown.violations() and hidden.violations()
            assert hidden.json()["message"] == unknown.json()["message"]
        assert ask(hub, f"{PATH}?fields=name", as_key(made)).status == 200
        assert ask(hub, "/v1/changes:watch", as_key(made)).status == 200


def test_a_page_learns_from_the_ticket_what_is_wrong_with_its_feed(hub: RunningHub) -> None:
    """An EventSource does not show its page the body of an error."""
    reply = ask(hub, f"{PATH}?fliter=x", bearer(hub.token("crm")))
    assert reply.status == 400 and "did you mean 'filter'" in reply.text
    assert ask(hub, PATH, {}).status == 401


def test_it_leaves_no_trace(hub: RunningHub) -> None:
    feed = f"{PATH}?{FILTER.format('c1')}"
    given = ask(hub, feed, bearer(hub.token("crm")))
    ticket = given.json()["ticket"]
    events = source(hub, given.json()["url"])
    with events.request() as reply:
        served = reply.getheader("x-request-id")
        reply.readline()
    bad = source(hub, f"{PATH}?ticket={ticket}")
    with bad.request() as reply:
        refused_as, body = reply.getheader("x-request-id"), reply.read().decode()
    assert ticket not in body
    logged = [*hub.data.glob("log/**/*"), hub.data / "penstock.log"]

    def texts() -> str:
        return "".join(path.read_text() for path in logged if path.is_file())

    assert served and refused_as
    eventually(lambda: served in texts() and refused_as in texts())
    entries = hub.sql("SELECT e::text FROM hub.audit_entry AS e WHERE method LIKE '%Watch%'")
    assert any("customers" in row for (row,) in entries)
    for secret in (ticket, ticket[:40], hub.token("crm")):
        assert secret not in texts()
        assert not [row for (row,) in entries if secret in row]
    made = hub.sql("SELECT e::text FROM hub.audit_entry AS e WHERE method LIKE '%StreamTicket'")
    assert made and not [row for (row,) in made if ticket[:40] in row]


# --- the tokens of open streams --------------------------------------------------------------


def short_lived(hub: RunningHub) -> str:
    """A token that lives just long enough for a slow machine to begin a stream."""
    return own_forger(hub).signed(exp=int(time.time()) + 20)


@pytest.mark.parametrize("way", ["header", "ticket"])
def test_a_stream_ends_when_its_token_expires(hub: RunningHub, way: str) -> None:
    """It says so, and how to go on: with a new token, from the cursor."""
    headers, feed = bearer(short_lived(hub)), f"{PATH}?heartbeat_seconds=1"
    url = ask(hub, feed, headers).json()["url"]
    events = source(hub, feed, **headers) if way == "header" else source(hub, url)
    *_, last = events.connect()
    assert last.name == "end"
    end = last.data["end"]
    assert (end["reason"], end["reconcile"]) == ("UNAUTHENTICATED", "RESUME")
    assert end["receipt"]["state"] == "COMPLETE"
    # The browser reconnects in vain, which ends its EventSource; the page gets a new ticket.
    assert refused(events) == UNKNOWN
    put(hub, "customers", {"customerId": key(), "name": "Afterwards"})
    fresh = ask(hub, feed, bearer(hub.token("crm"))).json()["url"]
    cursor, _, proof = events.last_id.partition("~")
    assert bool(proof) == (way == "ticket")
    going_on = source(hub, f"{fresh}&cursor={cursor}")
    assert first_change(going_on).data["changes"]


def test_a_page_goes_on_in_a_snapshot_with_a_new_ticket(hub: RunningHub) -> None:
    """As the guide does it: with a ticket for the feed without a snapshot, and the cursor alone."""
    prefix = key()
    put(hub, "customers", *[{"customerId": f"{prefix}-{i}", "name": "n"} for i in range(3)])
    feed = f"{PATH}?filter=customer_id:%22{prefix}*%22&batch_size=1"
    begun = source(hub, ask(hub, f"{feed}&snapshot=true", bearer(hub.token("crm"))).json()["url"])
    found = first_change(begun)
    fresh = ask(hub, feed, bearer(hub.token("crm"))).json()["url"]
    cursor, _, proof = found.last_id.partition("~")
    going_on = source(hub, f"{fresh}&cursor={cursor}")
    assert [c["key"] for c in first_change(going_on).data["changes"]] == [f"{prefix}-1"]
    # The proof does not belong into a URL, where logs have it.
    assert proof
    assert refused(source(hub, f"{fresh}&cursor={found.last_id}")) == (400, "CURSOR_INVALID")


def test_so_does_the_stream_of_a_subscription(hub: RunningHub) -> None:
    token, name = short_lived(hub), key()
    wanted = {"datasets": ["customers"], "filter": f'name = "{name}"'}
    body = {"subscription": {"subscriptionId": name, **wanted}}
    made = hub.request("POST", "/v1/subscriptions", consumer="admin", json_body=body)
    assert made.status == 200, made.text
    path = f"/v1/subscriptions/{name}:watch?heartbeat_seconds=1"
    *_, last = source(hub, path, **bearer(token)).connect()
    assert (last.name, last.data["end"]["reason"]) == ("end", "UNAUTHENTICATED")
