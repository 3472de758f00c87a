"""Webhooks whose owner sees records by what they refer to: they deliver what leaves the View and
what enters it, and nothing hidden in either case."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from feeds import credentials, delete, patch, put
from harness import RunningHub
from penstock.client.webhooks import verify
from posted import Post, receiving

SHOWN = {"PUBLIC": "clear", "INTERNAL": "clear", "PII": "hide", "SENSITIVE": "hide"}
#: Texts of an order that no reader here may see, in any delivery's body or header.
SECRETS = ("Hidden Recipient", "1 Hidden Street", "H-1D")


def key(kind: str) -> str:
    return f"t-{kind}-{uuid.uuid4().hex[:10]}"


def rule(dataset: str, rows: str) -> dict[str, Any]:
    return {"dataset": dataset, "actions": ["read"], "classMasks": SHOWN, "rowFilter": rows}


@contextlib.contextmanager
def owner(hub: RunningHub, *grants: Any) -> Iterator[str]:
    """A consumer that may have webhooks; represented by its API key."""
    name = f"t-{uuid.uuid4().hex[:8]}"

    def administer(verb: str, path: str, body: Any = None) -> Any:
        reply = hub.request(verb, f"/v1/access{path}", consumer="admin", json_body=body)
        assert reply.status == 200, reply.text
        return reply.json()

    permissions = ["webhooks.read", "webhooks.write"]
    role = {"roleId": name, "grants": list(grants), "permissions": permissions}
    administer("POST", "/roles", role)
    administer("POST", "/consumers", {"consumerId": name, "roles": [name]})
    issued = administer("POST", f"/consumers/{name}/credentials", {"kind": "API_KEY"})
    hub.settle()
    try:
        yield f"key:{issued['secret']}"
    finally:
        administer("DELETE", f"/consumers/{name}")
        administer("DELETE", f"/roles/{name}")


@dataclass(frozen=True)
class Hook:
    """A webhook as its owner knows it."""

    path: str
    secret: str
    headers: dict[str, str]

    def deliveries(self, hub: RunningHub) -> int:
        """The number of deliveries, delivered or not."""
        reply = hub.request("GET", f"{self.path}/deliveries", headers=self.headers)
        assert reply.status == 200, reply.text
        return len(reply.json()["deliveries"])


@contextlib.contextmanager
def webhook(hub: RunningHub, consumer: str, url: str, selection: Any) -> Iterator[Hook]:
    """A webhook, until the end of the block."""
    headers = dict(credentials(hub, consumer))
    document = {"url": url, "selections": [selection]}
    reply = hub.request("POST", "/v1/webhooks", headers=headers, json_body=document)
    assert reply.status == 200, reply.text
    made = reply.json()
    path = f"/v1/webhooks/{made['webhook']['webhookId']}"
    try:
        yield Hook(path, made["secret"], headers)
    finally:
        assert hub.request("DELETE", path, headers=headers).status == 200


def customer(customer_id: str, status: str) -> dict[str, Any]:
    return {"customerId": customer_id, "name": "Neither of them", "status": status}


def order(order_id: str, customer_id: str) -> dict[str, Any]:
    shipping = {"recipient": SECRETS[0], "line1": SECRETS[1], "postalCode": SECRETS[2]}
    return {"orderId": order_id, "customerId": customer_id, "shippingAddress": shipping}


def told(posts: list[Post], secret: str) -> list[tuple[str, str]]:
    """The type and key of each event, in the order of the log; each is verified."""
    events = [verify(post.headers, post.body, secret) for post in posts]
    events.sort(key=lambda e: (int(e["data"]["revision"]), e["type"], e["data"]["key"]))
    return [(e["type"], e["data"]["key"]) for e in events]


def hidden(posts: list[Post], *words: str) -> bool:
    """Whether no posted message contains any of the words."""
    sent = [post.body.decode() + "".join(post.headers.values()) for post in posts]
    return not any(word in text for text in sent for word in words)


def test_orders_leave_and_enter_with_their_customer(hub: RunningHub) -> None:
    first, second = key("c"), key("c")
    mine, other = key("o"), key("o")
    path, clear = f"/{uuid.uuid4().hex}", f"/{uuid.uuid4().hex}"
    selection = {"dataset": "orders", "filter": f'order_id = "{mine}" OR order_id = "{other}"'}
    put(hub, "customers", customer(first, "ACTIVE"), customer(second, "LEAD"))
    put(hub, "orders", order(mine, first), order(other, second))
    with (
        receiving() as posts,
        owner(hub, rule("orders", "customer.status = ACTIVE")) as consumer,
        webhook(hub, consumer, posts.url + path, selection) as hook,
        webhook(hub, "crm", posts.url + clear, selection) as all_seeing,
    ):
        try:
            patch(hub, "customers", first, status="CHURNED")
            patch(hub, "orders", mine, carrier="Any")  # while nobody sees it
            patch(hub, "customers", second, status="ACTIVE", name="Neither of them")
            patch(hub, "customers", first, status="ACTIVE")
            patch(hub, "orders", mine, customerId=second)
            patch(hub, "customers", first, status="CHURNED")  # its customer no longer
            patch(hub, "customers", second, status="CHURNED")
        finally:
            for each in (mine, other):
                delete(hub, "orders", each)
            for each in (first, second):
                delete(hub, "customers", each)
        # Both were deleted while they were outside its View: there is nothing to report.
        found = posts.wait(path, 6)
        assert told(found, hook.secret) == [
            ("order.left_view", mine),
            ("order.entered_view", other),
            ("order.entered_view", mine),
            ("order.updated", mine),
            *[("order.left_view", each) for each in sorted((mine, other))],
        ]
        for post in found:
            event = verify(post.headers, post.body, hook.secret)
            assert ("record" in event["data"]) is (event["type"] != "order.left_view")
        assert hidden(found, *SECRETS, "Neither of them", "CHURNED")
        # Negative control: a consumer that sees all orders and persons gets no such events, and the
        # search finds in its messages what is hidden from the other.
        every = posts.wait(clear, 4)
        assert told(every, all_seeing.secret) == [
            *[("order.updated", mine)] * 2,
            *[("order.deleted", each) for each in (mine, other)],
        ]
        assert all(not hidden(every, word) for word in SECRETS)
        # The end is in the queue of both: there was nothing more for the first.
        assert hook.deliveries(hub) == len(found)
