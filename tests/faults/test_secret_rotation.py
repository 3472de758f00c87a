"""Two nodes rotate the root secret while they restart in turn and consumers go on working.

Both nodes accept whatever was given out or stored under the old secret: API keys, tokens, cursors,
page tokens, webhooks with their signatures, hashes of masked values. The negative control is a node
that has only the new secret too early: it refuses what still needs the old one.
"""

from __future__ import annotations

import http.client
import json
import secrets
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from clusters import Cluster
from harness import AWAY, Reply, RunningHub, eventually, folder, free_port, new_customer
from penstock.client.webhooks import verify
from posted import Post, Posts, receiving

pytestmark = pytest.mark.lane(priority=8)

OLD, NEW = secrets.token_urlsafe(40), secrets.token_urlsafe(40)
#: Far longer than any test takes.
ETERNITY = 10**9


class Callers:
    """Calls with an API key at whichever node answers, again and again, from a thread."""

    def __init__(self, hubs: list[RunningHub], key: str) -> None:
        self._hubs, self._key = hubs, key
        self._done = threading.Event()
        self.served, self.refused = 0, list[str]()
        self._thread = threading.Thread(target=self._call, daemon=True)

    def __enter__(self) -> Callers:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _replies(self) -> list[Reply | None]:
        return [tried(hub, self._key) for hub in self._hubs]

    def _call(self) -> None:
        while not self._done.wait(0.1):
            replies = self._replies()
            if not any(answers_of(replies)):
                # On a slow machine, one node was away at first, and the other a moment later.
                replies = self._replies()
            answers = answers_of(replies)
            self.served += any(r.status == 200 for r in answers)
            # A node that stops or starts may fail to answer, as long as the other one serves.
            if not answers or any(r.status != 200 for r in answers):
                self.refused.append(", ".join(r.text if r else "silent" for r in replies))


def answers_of(replies: list[Reply | None]) -> list[Reply]:
    """The replies of the nodes that were reachable."""
    return [r for r in replies if r is not None and r.status not in AWAY]


def tried(hub: RunningHub, key: str) -> Reply | None:
    """The reply to a call with an API key; None if nobody takes it."""
    try:
        return hub.request("GET", "/v1/datasets", headers={"x-api-key": key})
    except (OSError, http.client.HTTPException):
        return None


@dataclass
class Site:
    """Two nodes on one database, and a receiver of webhooks."""

    near: RunningHub
    far: RunningHub
    posts: Posts
    taken: set[str] = field(default_factory=set)

    @property
    def hubs(self) -> list[RunningHub]:
        return [self.near, self.far]

    def restart(self, hub: RunningHub, secret: str, second: str = "") -> None:
        hub.stop()
        hub.environment["PENSTOCK_SECRET"] = secret
        hub.environment.pop("PENSTOCK_SECOND_SECRET", None)
        if second:
            hub.environment["PENSTOCK_SECOND_SECRET"] = second
        hub.command("up", "--detach")

    def status(self) -> dict[str, dict[str, Any]]:
        """What ``penstock secret status`` says, by secret."""
        done = self.near.command("secret", "status", "--format", "json")
        return {s["secret_id"]: s for s in json.loads(done.stdout)["secrets"]}


@pytest.fixture
def site() -> Iterator[Site]:
    with folder() as data, receiving() as posts:
        cluster = Cluster.create(data / "database")
        cluster.start(free_port())
        try:
            cluster.create_database()
            common = {
                "PENSTOCK_WORKERS": "1",
                "PENSTOCK_PUBLIC_URL": "http://hub.example.com",
                "PENSTOCK_DATABASE_URL": cluster.url,
                "PENSTOCK_WEBHOOK_ALLOW": "127.0.0.0/8",
                "PENSTOCK_AUDIT_CHECKPOINT_SECONDS": "0.5",
                "PENSTOCK_SECRET": OLD,
            }
            near, far = (
                RunningHub(data / name, customers=20, secret="", environment=dict(common))
                for name in ("near", "far")
            )
            found = Site(near, far, posts)
            try:
                near.start()
                far.command("up", "--detach")
                shutil.copy(near.data / "demo.json", far.data)
                yield found
            finally:
                far.stop()
                near.stop()
        finally:
            cluster.stop()


def by_key(hub: RunningHub, key: str, path: str, **query: object) -> Reply:
    return hub.request("GET", path, headers={"x-api-key": key}, query=query)


@dataclass
class Held:
    """What a consumer has from the time of the old secret."""

    key: str
    token: str
    cursor: str
    page: str
    hashes: dict[str, str]

    def check(self, hub: RunningHub, *, pages: bool = True) -> None:
        """Assert that a hub accepts all of it."""
        assert by_key(hub, self.key, "/v1/datasets").status == 200
        bearer = {"authorization": f"Bearer {self.token}"}
        assert hub.request("GET", "/v1/datasets", headers=bearer).status == 200
        reply = by_key(hub, self.key, "/v1/changes", cursor=self.cursor)
        assert reply.status == 200, reply.text
        if pages:
            reply = by_key(hub, self.key, "/v1/customers", page_size=5, page_token=self.page)
            assert reply.status == 200, reply.text
        assert emails(hub) == self.hashes


def emails(hub: RunningHub) -> dict[str, str]:
    """The masked e-mail addresses of some customers, as the consumer of hashes sees them."""
    key = hub.consumers["bi"]["api_key"]
    reply = by_key(hub, key, "/v1/customers", page_size=10, order_by="customer_id")
    assert reply.status == 200, reply.text
    return {r["customerId"]: r.get("email", "") for r in reply.json()["customers"]}


def written(site: Site, hub: RunningHub) -> Post:
    """Write a customer at a node; returns the webhook's post about it."""
    reply = hub.request(
        "POST",
        "/v1/customers",
        headers={"x-api-key": hub.api_key},
        json_body=new_customer(),
    )
    assert reply.status == 200, reply.text
    key = reply.json()["customerId"].encode()
    found: Post = eventually(
        lambda: next((p for p in list(site.posts.taken) if key in p.body), None)
    )
    return found


def checked(site: Site, hub: RunningHub, secret: str) -> int:
    """Write at a node, and check what the webhook delivers; returns the change's revision."""
    post = written(site, hub)
    event = verify(post.headers, post.body, secret, tolerance=ETERNITY)
    assert post.headers["x-own"] == "header of the receiver"
    return int(event["data"]["revision"])


def begun(site: Site) -> tuple[Held, str]:
    """What a consumer has from the old secret, and the secret of its webhook."""
    near = site.near
    near.sql(
        "UPDATE hub.grant SET field_masks = jsonb_set(field_masks, '{email}', '\"hash\"')"
        " WHERE role_id = 'bi' AND dataset = 'customers'"
    )
    eventually(lambda: all(len(text) == 64 for hub in site.hubs for text in emails(hub).values()))
    body = {
        "url": f"{site.posts.url}/hook",
        "headers": {"x-own": "header of the receiver"},
        "selections": [{"dataset": "customers"}],
    }
    made = near.request("POST", "/v1/webhooks", headers={"x-api-key": near.api_key}, json_body=body)
    assert made.status == 200, made.text
    return hold(near, near, near.token("admin"), emails(near)), made.json()["secret"]


def hold(first: RunningHub, second: RunningHub, token: str, hashes: dict[str, str]) -> Held:
    """A cursor of one node and a page token of another, with the other things a consumer has."""
    key = first.api_key
    cursor = by_key(first, key, "/v1/changes").json()["nextCursor"]
    page = by_key(second, key, "/v1/customers", page_size=5).json()["nextPageToken"]
    return Held(key, token, cursor, page, hashes)


def rotated(site: Site) -> tuple[str, str]:
    """Give each node both secrets and rotate; returns the ids of the old and the new one."""
    near, far = site.near, site.far
    (old,) = site.status()
    site.restart(near, OLD, NEW)
    # The rotation cannot begin until all nodes know the new secret.
    refused = near.command("secret", "rotate", check=False)
    assert refused.returncode == 1 and b"is not known on" in refused.stderr, refused.stderr
    site.restart(far, OLD, NEW)
    # If others are sealing the audit at this moment, the command says "try again".
    eventually(lambda: near.command("secret", "rotate"))
    (new,) = set(site.status()) - {old}
    assert site.status()[new]["state"] == "next"
    # A minute passes.
    near.sql("UPDATE hub.root_secret SET seal_time = now() WHERE seal_time > now()")
    near.sql("UPDATE hub.cursor_key SET seal_time = now() WHERE seal_time > now()")
    assert {k: v["state"] for k, v in site.status().items()} == {old: "opens", new: "seals"}
    return old, new


def protects(site: Site, old: str) -> None:
    """The old secret still protects something: the status says so, and the hub refuses to retire
    it."""
    holding = {p["what"]: p for p in site.status()[old]["protects"] if p["holds"]}
    assert set(holding) == {"credentials", "cursors", "page tokens", "stream tickets"}
    assert holding["cursors"]["until"] is not None
    refused = site.near.command("secret", "retire", old, check=False)
    assert refused.returncode == 1 and b"credentials" in refused.stderr, refused.stderr


def needs_the_old_one(site: Site, held: Held) -> None:
    """A node without the old secret refuses what needs it; the other node accepts it."""
    unused = site.far.consumers["crm"]["api_key"]
    assert by_key(site.far, unused, "/v1/datasets").status == 401
    assert by_key(site.near, unused, "/v1/datasets").status == 200
    reply = by_key(site.far, held.key, "/v1/changes", cursor=held.cursor)
    assert (reply.status, reply.reason) == (400, "CURSOR_INVALID"), reply.text
    reply = by_key(site.far, held.key, "/v1/customers", page_size=5, page_token=held.page)
    assert reply.status == 400, reply.text


def outlived(site: Site, old: str) -> None:
    """Retire the old secret, once nothing depends on it: the log's retention passes, and those who
    never called are revoked."""
    near = site.near
    for table in ("root_secret", "cursor_key"):
        near.sql(f"UPDATE hub.{table} SET seal_time = seal_time - interval '8 days'")
    near.sql(
        "UPDATE hub.credential SET revoked = true WHERE credential_id NOT IN"
        " (SELECT credential_id FROM hub.credential_digest)"
    )
    near.command("secret", "retire", old)
    assert site.status()[old]["state"] == "retired"


def test_a_secret_is_rotated_while_consumers_go_on(site: Site) -> None:
    near, far = site.near, site.far
    held, signature = begun(site)
    held.check(far)
    revisions = [checked(site, near, signature)]
    with Callers(site.hubs, held.key) as callers:
        old, _ = rotated(site)
        for hub in site.hubs:
            held.check(hub)
            revisions.append(checked(site, hub, signature))
        protects(site, old)
        eventually(lambda: near.command("audit", "verify"))
        # What is made now needs only the new secret.
        far.tokens.clear()
        fresh = hold(near, far, far.token("admin"), held.hashes)
        site.restart(far, NEW)  # its end writes which credentials were used
        fresh.check(far)
        needs_the_old_one(site, held)
        outlived(site, old)
        fresh.check(near, pages=False)  # the policy has changed, which ends pages
        site.restart(near, NEW)
        for hub in site.hubs:
            fresh.check(hub, pages=False)
            revisions.append(checked(site, hub, signature))
    assert not callers.refused and callers.served
    assert revisions == sorted(set(revisions))
    for key in ((), ("--public-key", old_key(near))):
        done = eventually(lambda key=key: near.command("audit", "verify", *key))  # type: ignore[misc]
        assert b"intact" in done.stdout


def old_key(hub: RunningHub) -> str:
    """The public key that signed the first checkpoint."""
    ((text,),) = hub.sql(
        "SELECT encode(public_key, 'base64') FROM hub.audit_checkpoint ORDER BY number LIMIT 1"
    )
    return str(text)
